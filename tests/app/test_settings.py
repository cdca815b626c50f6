from __future__ import annotations

import pytest

from app.settings import Settings, parse


def test_defaults_serve_this_machine_alone():
    assert parse([], {}) == Settings()
    assert Settings().host == "127.0.0.1"


def test_a_space_sets_host_and_port_by_environment():
    settings = parse([], {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "8000"})
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)


def test_the_command_line_goes_before_the_environment():
    environment = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "8000"}
    settings = parse(["--host", "localhost", "--port", "9000"], environment)
    assert (settings.host, settings.port) == ("localhost", 9000)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ([], True),
        (["--host", "0.0.0.0"], False),
        (["--host", "0.0.0.0", "--other-checkpoints"], True),
        (["--no-other-checkpoints"], False),
    ],
)
def test_visitors_name_checkpoints_only_where_the_page_is_private_or_it_is_allowed(arguments, allowed):
    assert parse(arguments, {}).other_checkpoints is allowed


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ([], True),
        (["--host", "0.0.0.0"], False),
        (["--host", "0.0.0.0", "--studies-in-page"], True),
        (["--no-studies-in-page"], False),
    ],
)
def test_visitors_make_studies_only_where_the_page_is_private_or_it_is_allowed(arguments, allowed):
    assert parse(arguments, {}).studies_in_page is allowed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port must be 0..65535, found 70000"),
        (["--threads", "0"], "--threads must be at least 1, found 0"),
        (["--max-runs", "0"], "--max-runs must be at least 1, found 0"),
        (["--proxies", "-1"], "--proxies must be at least 0, found -1"),
        (["--port", "http"], "invalid int value: 'http'"),
    ],
)
def test_options_out_of_range_are_refused_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(arguments, {})
    assert message in capsys.readouterr().err


def test_the_watermark_is_on_until_it_is_switched_off():
    assert parse([], {}).watermark is True
    assert parse(["--no-watermark"], {}).watermark is False


def test_checkpoints_are_a_list():
    assert parse(["--checkpoints", "speech-small", "org/name@v1"], {}).checkpoints == ("speech-small", "org/name@v1")


def test_others_get_shares_of_the_work_and_this_machine_alone_gets_all():
    own, public = parse([], {}), parse(["--host", "0.0.0.0"], {})
    assert (own.work.per_visitor, own.work.per_address, own.work.max_runs_of_visitor) == (0, 0, 0)
    assert min(public.work.per_visitor, public.work.per_address, public.work.max_runs_of_visitor) > 0
    assert (own.work.max_runs_of_address, public.work.max_runs_of_address, public.work.max_runs) == (0, 12, 16)
    assert (own.local, public.local) == (True, False)
    assert public.upload_bytes_per_hour > 0
    assert parse(["--host", "0.0.0.0", "--runs-per-visitor", "0", "--max-runs", "5"], {}).work.per_visitor == 0


def test_what_shows_more_is_off_until_it_is_asked_for(tmp_path):
    plain = parse([], {})
    assert (plain.metrics, plain.log_json, plain.login_file, plain.num_proxies) == (False, False, None, 0)
    assert plain.frame_ancestors == "'self'"
    arguments = ["--auth", str(tmp_path), "--metrics", "--proxies", "1", "--frame-ancestors", "'self'", "https://a.b"]
    asked = parse(arguments, {"GRADIO_TEMP_DIR": str(tmp_path)})
    assert (asked.login_file, asked.cache_folder, asked.num_proxies) == (tmp_path, tmp_path, 1)
    assert asked.frame_ancestors == "'self' https://a.b"


def test_a_space_is_behind_a_proxy_and_in_a_frame():
    space = parse([], {"SPACE_ID": "org/name", "GRADIO_SERVER_NAME": "0.0.0.0"})
    assert (space.num_proxies, space.frame_ancestors) == (1, "'self' https://huggingface.co")
    assert parse(["--proxies", "2"], {"SPACE_ID": "org/name"}).num_proxies == 2
