"""The command `tts-server`, of which Ctrl-C is quiet from its first moment on."""

import signal


def main() -> None:
    """Runs the command; until it is imported, a signal ends the process without a word."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tts_server.cli.main import app  # noqa: PLC0415

    signal.signal(signal.SIGINT, before)
    app()


if __name__ == "__main__":
    main()
