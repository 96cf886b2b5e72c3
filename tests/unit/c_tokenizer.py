"""The tokenizer in C as a program for this computer, and a session of requests to it.

It is compiled with the sanitizers where the host's compiler has them.
"""

import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgesdk.targets import targets_dir

from .c_runtime import c_compiler

RUNTIME = targets_dir() / "cortex-m" / "runtime"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
OK, BAD_TABLE, BAD_TEXT, IDS_FULL, SCRATCH_FULL, OUTPUT_FULL = range(6)
ROOM = 4096  # ids, and bytes of output, unless a request says less

#: Requests: operation, limit, bytes, then the bytes. Answers: status, count, then ids or bytes.
DRIVER = r"""
#include "lm_tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lm_tokenizer tokenizer;

static void answer(int status, const void *data, size_t count, size_t width) {
    const uint32_t head[2] = {(uint32_t)status, (uint32_t)count};
    fwrite(head, 4, 2, stdout);
    fwrite(data, width, count, stdout);
}

/* Exact sizes on the heap, so that a sanitizer sees the first byte outside. */
static void encode(const char *text, uint32_t size, uint32_t capacity, uint32_t scratch, int prefix) {
    lm_ids out = {malloc(4 * (size_t)capacity), capacity, 0, malloc(4 * (size_t)scratch), scratch};
    int status = prefix ? lm_tokenizer_prefix(&tokenizer, &out) : LM_TOKENIZER_OK;
    if (status == LM_TOKENIZER_OK) status = lm_tokenizer_encode(&tokenizer, text, size, &out);
    answer(status, out.ids, out.count, 4);
    free(out.ids);
    free(out.scratch);
}

static int step(lm_decoder *decoder, const uint32_t *id, char *out, size_t room, size_t *length) {
    if (id == NULL) return lm_decoder_end(&tokenizer, decoder, out, room, length);
    return lm_decoder_token(&tokenizer, decoder, *id, out, room, length);
}

/*
 * Token by token, each into a buffer of `room` bytes; tokens that do not fit once are tried again with enough. What a
 * damaged table says is only counted.
 */
static void decode(const uint32_t *ids, uint32_t count, uint32_t room, int damaged) {
    const size_t most = damaged ? room : lm_tokenizer_most_bytes(&tokenizer);
    char *text = malloc((count + 1) * (most + room)), *small = malloc(room), *large = malloc(most);
    size_t length, total = 0;
    uint32_t index;
    int status = LM_TOKENIZER_OK;
    lm_decoder decoder;
    lm_decoder_start(&tokenizer, &decoder);
    for (index = 0; index <= count; index++) {
        const uint32_t *id = index < count ? &ids[index] : NULL;
        const char *out = small;
        if (step(&decoder, id, small, room, &length)) {
            status = LM_TOKENIZER_OUTPUT_FULL;
            out = large;
            if (step(&decoder, id, large, most, &length) && !damaged) abort();
        }
        if (length && ((unsigned char)out[0] & 0xc0) == 0x80 && !damaged) abort(); /* half a character */
        memcpy(text + total, out, length);
        total += length;
    }
    answer(status, text, damaged ? 0 : total, 1);
    free(text);
    free(small);
    free(large);
}

int main(void) {
    uint32_t head[4];
    void *table = NULL;
    while (fread(head, 4, 4, stdin) == 4) {
        char *data = malloc(head[3]);
        if (fread(data, 1, head[3], stdin) != head[3]) return 2;
        if (head[0] == 't') {
            int status = lm_tokenizer_open(&tokenizer, data, head[3]);
            free(table);
            table = data;
            answer(status, data, 0, 1);
            continue;
        }
        if (tokenizer.table == NULL) answer(LM_TOKENIZER_BAD_TABLE, data, 0, 1);
        else if (head[0] == 's') {
            const uint32_t stop = (uint32_t)lm_tokenizer_is_stop(&tokenizer, head[1]);
            answer((int)lm_tokenizer_size(&tokenizer), &stop, 1, 4);
        } else if (head[0] == 'd') decode((uint32_t *)(void *)data, head[3] / 4, head[1], head[2] != 0);
        else encode(data, head[3], head[1], head[2], head[0] == 'p');
        free(data);
    }
    free(table);
    return 0;
}
"""


def compile_driver(folder: Path) -> Path:
    """The compiled program."""
    (folder / "driver.c").write_text(DRIVER)
    command = [c_compiler(), *WARNINGS, "-O1", "-g", f"-I{RUNTIME}", "driver.c", str(RUNTIME / "lm_tokenizer.c")]
    sanitized = [*command, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", "driver"]
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    probe = [command[0], "-fsanitize=address,undefined", "empty.c", "-o", "empty"]
    has_sanitizers = subprocess.run(probe, cwd=folder, capture_output=True).returncode == 0
    subprocess.run(sanitized if has_sanitizers else [*command, "-o", "driver"], cwd=folder, check=True)
    return folder / "driver"


class Session:
    """Requests that are collected, then run at once; every answer goes to its check."""

    def __init__(self, driver: Path, table: bytes) -> None:
        self.driver = driver
        self.requests = bytearray()
        self.kinds: list[str] = []
        self.table(table)

    def _add(self, operation: str, first: int, second: int, data: bytes) -> None:
        self.kinds.append(operation)
        self.requests += struct.pack("<4I", ord(operation), first, second, len(data)) + data

    def table(self, table: bytes) -> None:
        self._add("t", 0, 0, table)

    def encode(
        self, text: str | bytes, *, capacity: int = ROOM, scratch: int | None = None, prefix: bool = False
    ) -> None:
        data = text.encode() if isinstance(text, str) else text
        self._add("p" if prefix else "e", capacity, 2 * (len(data) + 3) if scratch is None else scratch, data)

    def decode(self, ids: Iterable[int], *, room: int = ROOM, damaged: bool = False) -> None:
        self._add("d", room, int(damaged), b"".join(struct.pack("<I", index) for index in ids))

    def is_stop(self, index: int) -> None:
        self._add("s", index, 0, b"")

    def run(self) -> list[tuple[int, Any]]:
        """Status with ids or bytes of every request after the first, which opens the table."""
        done = subprocess.run([self.driver], input=self.requests, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        data, at, answers = done.stdout, 0, []
        for kind in self.kinds:
            status, count = struct.unpack_from("<2I", data, at)
            at += 8
            size = count if kind in "dt" else 4 * count
            body = data[at : at + size]
            answers.append((status, body if kind in "dt" else list(struct.unpack(f"<{count}I", body))))
            at += size
        assert at == len(data) and answers[0] == (OK, b"")
        return answers[1:]
