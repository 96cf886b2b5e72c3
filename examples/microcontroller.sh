#!/bin/sh
# A model of our own, from training to firmware that answers on an emulated Cortex-M4: about 5 minutes.
# Needs Debian's gcc-arm-none-eabi libnewlib-arm-none-eabi cmake qemu-system-arm. Arguments go to the training (--quick).
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet 'torch==2.13.0' -e '.[model]' pyserial
.venv/bin/python examples/tiny_model/train.py --out build/tiny "$@"
.venv/bin/edgesdk fit build/tiny --recipe w8
.venv/bin/edgesdk export build/tiny --target cortex-m4f --recipe w8 --eval-text build/tiny/eval.txt --out build/tiny-m4f
cmake -S build/tiny-m4f/firmware -B build/tiny-firmware -DBOARD=mps2-an386 > /dev/null
cmake --build build/tiny-firmware
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
qemu-system-arm -machine mps2-an386 -kernel build/tiny-firmware/firmware.elf -nodefaults -display none \
    -icount shift=0,sleep=off -serial "tcp:127.0.0.1:$port,server=on,wait=on" 2> build/qemu.log &
trap 'kill $!' EXIT
.venv/bin/python examples/ask_board.py "socket://127.0.0.1:$port" "Once upon a time" --wait 10
