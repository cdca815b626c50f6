"""Look of the page: theme and style sheet. Fonts are the reader's own, so the page needs no other server."""

from __future__ import annotations

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Quiet grays with the blue of the coarse token lanes."""
    blue = gr.themes.Color(
        c50="#eef7fc",
        c100="#d9eefa",
        c200="#b3dcf4",
        c300="#86c6ec",
        c400="#56b4e9",
        c500="#2490cf",
        c600="#0072b2",
        c700="#005e94",
        c800="#004a75",
        c900="#003857",
        c950="#002c47",
        name="studio-blue",
    )
    return gr.themes.Base(
        primary_hue=blue,
        secondary_hue=blue,
        neutral_hue=gr.themes.colors.slate,
        font=list(SANS),
        font_mono=list(MONO),
        radius_size=gr.themes.sizes.radius_lg,
        spacing_size=gr.themes.sizes.spacing_md,
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        block_label_text_weight="600",
        block_title_text_weight="600",
    )
