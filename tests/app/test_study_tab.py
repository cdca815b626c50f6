"""Where the links of a new study lead."""

import gradio as gr
import pytest
from fastapi import Request

from app.ui.study_tab import _page_address


@pytest.mark.parametrize(
    ("origin", "path", "expected"),
    [
        (b"http://127.0.0.1:7860", "", "http://127.0.0.1:7860/"),
        (b"https://host.example", "/studio", "https://host.example/studio/"),
        (b"https://host.example", "https://front.example/studio/", "https://front.example/studio/"),
        (b"null", "", ""),
        (None, "", ""),  # a program
    ],
)
def test_the_page_is_where_its_browser_found_it(origin, path, expected):
    headers = [(b"host", b"inner:80")] + ([(b"origin", origin)] if origin else [])
    scope = {"type": "http", "method": "POST", "path": "/", "root_path": path, "headers": headers, "query_string": b""}
    assert _page_address(gr.Request(request=Request(scope))) == expected
