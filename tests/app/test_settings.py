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
