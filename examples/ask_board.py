"""Ask a board that runs a bundle's firmware, over its UART.

    python examples/ask_board.py /dev/ttyACM0 "Once upon a time"
    python examples/ask_board.py socket://127.0.0.1:5555 "Once upon a time"     # QEMU with -serial tcp:...

Needs pyserial (pip install pyserial).
"""

from __future__ import annotations

import argparse
import sys
import time

import serial

from edgesdk.errors import EdgeError
from edgesdk.runner_lines import opened, prompt_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", help="a serial device, or a URL that pyserial understands")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=100, help="at most so many new tokens")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slide", action="store_true", help="a full context slides instead of ending the answer")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for the port to appear")
    options = parser.parse_args()
    try:
        with connected(options.port, options.wait) as line:
            line.write(  # what a cut line left behind ends here
                b"\n"
                + prompt_command(
                    options.prompt,
                    new_tokens=options.tokens,
                    temperature=options.temperature,
                    top_p=options.top_p,
                    seed=options.seed,
                    slide=options.slide,
                )
            )
            return show(line)
    except (EdgeError, serial.SerialException) as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 1


def connected(port: str, seconds: float) -> serial.SerialBase:
    """The open port, tried again for some seconds: a board that was just plugged in, an emulator that just started."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            return serial.serial_for_url(port, baudrate=115200, timeout=60)
        except serial.SerialException:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def show(line: serial.SerialBase) -> int:
    """Print the answer as it comes; 1 when the board reports an error or says nothing for a minute."""
    first = True
    while received := line.readline():
        event = opened(received)
        if first and event["event"] == "error" and event["code"] == "line":
            first = False
            continue
        if event["event"] == "token":
            print(event["text"], end="", flush=True)
        elif event["event"] == "error":
            print(f"Error: {event['message']} ({event['code']})", file=sys.stderr)
            return 1
        elif event["event"] == "done":
            print(f"\n[{event['prompt_tokens']} + {event['new_tokens']} tokens; {event['stop']}]", file=sys.stderr)
            return 0
    print("Error: the board says nothing: is its firmware running, at 115200 baud?", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
