"""The tokenizer in C against the `tokenizers` library: the same ids and text, and nothing read outside the table."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from edgesdk.errors import TargetError
from edgesdk.model.gguf_tokenizer import tokenizer_from_gguf
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer
from edgesdk_converters.cortex_m.character_classes import class_runs
from edgesdk_converters.cortex_m.tokenizer_table import tokenizer_table

from .c_runtime import c_compiler
from .c_tokenizer import (
    BAD_TABLE,
    BAD_TEXT,
    IDS_FULL,
    OK,
    OUTPUT_FULL,
    RUNTIME,
    SCRATCH_FULL,
    WARNINGS,
    Session,
    compile_driver,
)

SPECIALS = ("<|end|>", "<|end|>>", "<s>", "</s>", "<|!")
SENTENCE = "the cat isn't near a house; we'll say it's HERE, they've gone! I'M 1 22 333 4567 x2 naïve Straße été"
WORDS = SENTENCE.split()
ODD = [
    "'S",
    "'\u017f",
    "\u017f",
    "'LL",
    "\u00a0",
    "\u3000",
    "\t",
    "\r\n",
    "\n\n",
    "  ",
    "   ",
    "\x00",
    "\u2028",
    "é",
    "e\u0301",
]
ODD += [
    "日本",
    "中",
    "한국어",
    "😀",
    "👩\u200d🔬",
    "🇩🇪",
    "²",
    "٣",
    "Ⅷ",
    "½",
    "\u2581",
    "<0x41>",
    "\U00011de0",
    "\U00010ffff",
    "_",
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("c_tokenizer"))


def random_text(random_: random.Random) -> str:
    parts = []
    for _ in range(random_.randrange(1, 14)):
        kind = random_.randrange(8)
        if kind < 3:
            parts.append(random_.choice(WORDS) + random_.choice(("", " ", " ", "  ")))
        elif kind == 3:
            parts.append(random_.choice(ODD))
        elif kind == 4:
            parts.append(random_.choice((*SPECIALS, "<|end|", "<|", "<s", "</s")))
        elif kind == 5:
            parts.append(random_.choice((" ", "\n", "\t")) * random_.randrange(1, 5))
        elif kind == 6:
            parts.append("".join(chr(random_.randrange(0x20, 0x7F)) for _ in range(random_.randrange(1, 6))))
        else:
            parts.append("".join(random_character(random_) for _ in range(random_.randrange(1, 4))))
    return "".join(parts)


def random_character(random_: random.Random) -> str:
    code = random_.randrange(random_.choice((0x800, 0x3000, 0x10000, 0x20000, 0x110000)))
    return "?" if 0xD800 <= code < 0xE000 else chr(code)


def texts(seed: int, count: int) -> list[str]:
    random_ = random.Random(seed)
    return ["", " ", "a", "\x00", "a\x00b", "<s>", *(random_text(random_) for _ in range(count - 6))]


def trained(pre_tokenizer: Any, normalizer: Any, decoder: Any, alphabet: list[str], **model: Any) -> Backend:
    """A small BPE tokenizer trained on random texts without the odd characters of the test's own."""
    backend = Backend(models.BPE(**model))
    backend.pre_tokenizer, backend.normalizer = pre_tokenizer, normalizer
    random_ = random.Random(7)
    corpus = [" ".join(random_.choices(WORDS, k=12)) + random_.choice(("\n", "  ", "\n\n")) for _ in range(400)]
    first = ["<unk>"] if model.get("unk_token") else []
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=first, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    backend.train_from_iterator(corpus, trainer)
    backend.decoder = decoder
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    backend.add_tokens([AddedToken("<|", special=False, normalized=False)])
    return backend


def byte_level(steps: list[Any], *, own: bool, **model: Any) -> Backend:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own)
    pre = pre_tokenizers.Sequence([*steps, last]) if steps else last
    return trained(pre, None, decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet(), **model)


def split(regex: str) -> Any:
    return pre_tokenizers.Split(Regex(regex), "isolated")


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama2() -> Tokenizer:
    """As a GGUF file of Llama 2 or a llama2.c checkpoint gives it, from pieces with scores."""
    backend = trained(pre_tokenizers.Metaspace(), None, None, [], unk_token="<unk>")
    pieces = [piece for piece in backend.get_vocab() if piece not in (*SPECIALS, "<unk>", "<|")]
    pieces += ["\u2581" * 2, "\u2581" * 4]
    pieces.sort(key=lambda piece: (len(piece), piece))
    tokens = ["<unk>", *SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [3] * (1 + len(SPECIALS)) + [6] * 256 + [1] * len(pieces)
    random_ = random.Random(3)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [float(-random_.randrange(300)) for _ in tokens],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 3,
        "tokenizer.ggml.eos_token_id": 4,
    }
    return tokenizer_from_gguf(metadata, "test")


def characters(*, byte_pieces: bytes = b"", spaced: bool = True, space: bool = True) -> Tokenizer:
    """As a llama2.c vocabulary of characters gives it: few pieces for bytes or none, unknown characters ``<unk>``."""
    letters = sorted({*SENTENCE, *"\u65e5\u672c\ud55c"} - {" "}) + (["\u2581"] if space else [])
    pieces = [*(f"<0x{byte:02X}>" for byte in byte_pieces), *letters, "th", "the", "\u2581the"]
    tokens = ["<unk>", "<s>", "</s>", *pieces]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [6 if piece.startswith("<0x") else 1 for piece in pieces],
        "tokenizer.ggml.scores": [-float(index) for index, _ in enumerate(tokens)],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": spaced,
    }
    return tokenizer_from_gguf(metadata, "test")


def metaspace(scheme: str, *, split_words: bool, **model: Any) -> Backend:
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split_words)
    return trained(pre, None, decoders.Metaspace(prepend_scheme=scheme), [], **model)


def gemma() -> Backend:
    """Words may reach over spaces: nothing is cut before merging."""
    backend = trained(
        None,
        normalizers.Replace(" ", "\u2581"),
        decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]),
        [],
        unk_token="<unk>",
        fuse_unk=False,
    )
    assert any("\u2581" in piece.lstrip("\u2581") for piece in backend.get_vocab())
    return backend


def without_letters(backend: Backend) -> Backend:
    """Some bytes have no id, as in SmolLM2: their characters vanish."""
    definition = json.loads(backend.to_str())
    model = definition["model"]
    gone = set("ĀĿŃð")
    model["vocab"] = {token: index for token, index in model["vocab"].items() if not gone & set(token)}
    model["merges"] = [merge for merge in model["merges"] if not gone & set("".join(merge))]
    return Backend.from_str(json.dumps(definition))


KINDS: dict[str, Callable[[], Backend | Tokenizer]] = {
    "llama2": llama2,
    "characters": characters,
    "characters-no-prefix-space": lambda: characters(spaced=False),
    "characters-no-space": lambda: characters(space=False),
    "characters-some-bytes": lambda: characters(byte_pieces=bytes(range(0x80)) + b"\xc2\xc3\xa9\xa0\xe2\x81"),
    "gemma": gemma,
    "metaspace": lambda: metaspace("always", split_words=True, unk_token="<unk>", fuse_unk=True),
    "metaspace-first": lambda: metaspace("first", split_words=False, unk_token="<unk>"),
    "metaspace-never": lambda: metaspace("never", split_words=True),
    "gpt2": lambda: byte_level([], own=True),
    "smollm2": lambda: byte_level([pre_tokenizers.Digits(individual_digits=True)], own=True),
    "gaps": lambda: without_letters(byte_level([pre_tokenizers.Digits(individual_digits=True)], own=True)),
    "llama3": lambda: byte_level([split(LLAMA3)], own=False, ignore_merges=True),
    "qwen2-pattern": lambda: byte_level([split(LLAMA3.replace("{1,3}", ""))], own=False),
    "no-pattern": lambda: byte_level([], own=False),
}


def make(kind: str) -> Tokenizer:
    made = KINDS[kind]()
    return made if isinstance(made, Tokenizer) else Tokenizer(made.to_str(), SpecialTokens(stop=(3, 700), prefix=(2,)))


@pytest.mark.parametrize("kind", KINDS)
def test_same_ids_and_text(driver: Path, kind: str) -> None:
    tokenizer = make(kind)
    session = Session(driver, tokenizer_table(tokenizer))
    wanted = [(text, tokenizer.encode(text)) for text in texts(1, 10_000)]
    for text, ids in wanted:
        session.encode(text)
        session.decode(ids)
    answers = session.run()
    for number, (text, ids) in enumerate(wanted):
        assert answers[2 * number] == (OK, ids), (kind, text)
        assert answers[2 * number + 1] == (OK, tokenizer.decode(ids).encode()), (kind, text)


def every_cut_seen(tokenizer: Tokenizer) -> Tokenizer:
    """The same words, but any two bytes merge, ASCII with what is not first: the ids show each end of a word."""
    definition = json.loads(tokenizer.definition)
    alphabet = [token for token in definition["model"]["vocab"] if len(token) == 1]
    order = sorted(alphabet, key=ord)
    pairs = [(left, right) for left in order for right in order]
    pairs.sort(key=lambda pair: pair[0].isascii() == pair[1].isascii())
    tokens = [*order, *(left + right for left, right in pairs)]
    definition["model"] |= {"vocab": {token: index for index, token in enumerate(tokens)}, "merges": pairs}
    for number, added in enumerate(definition["added_tokens"]):
        added["id"] = len(tokens) + number
    return Tokenizer(json.dumps(definition), SpecialTokens())


@pytest.mark.parametrize("kind", ["gpt2", "smollm2", "llama3", "qwen2-pattern"])
def test_every_character(driver: Path, kind: str) -> None:
    """Each code point between letters, digits and spaces: classes are those of the library."""
    tokenizer = every_cut_seen(make(kind))
    session = Session(driver, tokenizer_table(tokenizer))
    edges = [first for first, _ in class_runs()]
    codes = sorted({*range(0x3100), *edges, *(edge - 1 for edge in edges[1:])} - set(range(0xD800, 0xE000)))
    wanted = [f"a{chr(code)}b 1{chr(code)}2 {chr(code)} {chr(code)}'s '{chr(code)}\n{chr(code)}\n " for code in codes]
    for text in wanted:
        session.encode(text)
    wanted += [text + "'\u017fa" for text in texts(4, 5000)]
    for text in wanted[len(codes) :]:
        session.encode(text)
    for text, answer in zip(wanted, session.run(), strict=True):
        assert answer == (OK, tokenizer.encode(text)), text


@pytest.mark.parametrize("kind", ["gpt2", "gaps", "llama3", "gemma", "metaspace"])
def test_random_ids(driver: Path, kind: str) -> None:
    """Any ids: characters that never become whole, special tokens, ids without a token."""
    tokenizer = make(kind)
    session = Session(driver, tokenizer_table(tokenizer))
    random_ = random.Random(5)
    low = 300 if kind != "gemma" else 2000
    wanted = [[random_.randrange(random_.choice((low, 700))) for _ in range(random_.randrange(9))] for _ in range(4000)]
    for ids in wanted:
        session.decode(ids, room=random_.choice((1, 3, 200)))
    for ids, (status, text) in zip(wanted, session.run(), strict=True):
        assert status in (OK, OUTPUT_FULL) and text == tokenizer.decode(ids).encode(), ids


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    """What byte fallback gives in a stream.

    The library replaces a whole run of byte tokens when any part of it is broken, which cannot be known ahead; here
    only what follows the last whole character before the break is replaced.
    """
    text, run = "", b""
    for index in [*ids, None]:
        token = tokenizer.token(index)
        if token.startswith("<0x"):
            run += bytes([int(token[3:5], 16)])
            continue
        whole = 0
        while whole < len(run) and any(_is_text(run[whole : whole + size]) for size in (1, 2, 3, 4)):
            whole = next(whole + size for size in (1, 2, 3, 4) if _is_text(run[whole : whole + size]))
        text += run[:whole].decode() + "\ufffd" * (len(run) - whole)
        run = b""
        text += "" if token in (*SPECIALS, "<unk>") else token.replace("\u2581", " ")
    return text.removeprefix(" ")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return bool(data)


def test_byte_fallback_in_a_stream(driver: Path) -> None:
    tokenizer = make("llama2")
    session = Session(driver, tokenizer_table(tokenizer))
    random_ = random.Random(6)
    base = tokenizer.backend.token_to_id("<0x00>")
    runs = [list("é".encode()), list("日".encode()), list("😀".encode()), [0xC3], [0xE6, 0x97], [0xFF], [0x20], [0x41]]
    wanted = []
    for _ in range(4000):
        ids: list[int] = []
        for _ in range(random_.randrange(7)):
            if random_.random() < 0.6:
                ids += [base + byte for byte in random_.choice(runs)]
            else:
                ids.append(random_.choice([index for index in (3, 270, 300, 330, 360) if index < tokenizer.size]))
        wanted.append(ids)
    for ids in wanted:
        session.decode(ids)
    same = 0
    for ids, answer in zip(wanted, session.run(), strict=True):
        # a special token between bytes is not there for the decoder
        kept = [index for index in ids if tokenizer.token(index) not in (*SPECIALS, "<unk>")]
        assert answer == (OK, streamed(tokenizer, kept).encode()), ids
        same += answer[1] == tokenizer.decode(ids).encode()
    assert same > 1500


def test_prefix_stop_and_size(driver: Path) -> None:
    tokenizer = make("llama2")
    session = Session(driver, tokenizer_table(tokenizer))
    session.encode("the cat", prefix=True)
    session.encode("", prefix=True, capacity=0)
    session.is_stop(4)
    session.is_stop(5)
    answers = session.run()
    assert answers[0] == (OK, tokenizer.encode("the cat", prefix=True))
    assert answers[1] == (IDS_FULL, [])
    assert answers[2:] == [(tokenizer.size, [1]), (tokenizer.size, [0])]


@pytest.mark.parametrize("kind", ["llama2", "gemma", "smollm2"])
def test_buffers_that_are_too_small(driver: Path, kind: str) -> None:
    tokenizer = make(kind)
    session = Session(driver, tokenizer_table(tokenizer))
    text = "the cat 日本 <s> isn't near a house"
    ids = tokenizer.encode(text)
    for capacity in range(len(ids) + 1):
        session.encode(text, capacity=capacity)
    longest = 2 * (len(text.encode()) + 3)
    for scratch in range(longest):
        session.encode(text, scratch=scratch)
    answers = session.run()
    assert answers[: len(ids)] == [(IDS_FULL, [])] * len(ids)
    assert answers[len(ids)] == (OK, ids)
    rest = answers[len(ids) + 1 :]
    enough = next(number for number, answer in enumerate(rest) if answer[0] == OK)
    assert enough > 4 and rest[:enough] == [(SCRATCH_FULL, [])] * enough
    assert all(answer == (OK, ids) for answer in rest[enough:])
    if kind != "gemma":  # words are merged one by one
        assert enough < longest // 2


def test_text_that_is_not_utf8(driver: Path) -> None:
    session = Session(driver, tokenizer_table(make("smollm2")))
    wrong = [b"\x80", b"a\xff", b"\xc3", b"\xe6\x97", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe0\x80\xaf"]
    wrong += [b"\xf0\x80\x80\xaf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xc3(", b"ok \xe6\x97("]
    for text in wrong:
        session.encode(text)
    assert session.run() == [(BAD_TEXT, [])] * len(wrong)


def test_long_words(driver: Path) -> None:
    text = "ab" * 1000
    tokenizer = make("gpt2")
    session = Session(driver, tokenizer_table(tokenizer))
    session.encode(text)
    assert session.run() == [(OK, tokenizer.encode(text))]


@pytest.mark.parametrize("kind", ["llama2", "llama3", "metaspace"])
def test_damaged_tables(driver: Path, kind: str) -> None:
    """Cut and flipped tables give an error or an answer; the sanitizers stop at anything else."""
    table = tokenizer_table(make(kind))
    session = Session(driver, table)
    random_ = random.Random(9)
    header = 4 * (14 + 3 * 16)
    cuts = [*range(header + 8), *(random_.randrange(len(table)) for _ in range(100)), len(table) - 1]
    for cut in cuts:
        session.table(table[:cut])
    assert session.run() == [(BAD_TABLE, b"")] * len(cuts)

    for _ in range(12):  # several processes, so that a crash names a small request
        session = Session(driver, table)
        for _ in range(250):
            damaged = bytearray(table)
            for _ in range(random_.choice((1, 1, 4))):
                at = random_.randrange(random_.choice((header, len(table))))
                damaged[at] = random_.choice(
                    (0, 0xFF, damaged[at] ^ (1 << random_.randrange(8)), random_.randrange(256))
                )
            session.table(bytes(damaged))
            session.encode(random_text(random_), prefix=True)
            session.encode("the cat isn't 1234 <s> 日本", capacity=9, scratch=20)
            session.decode([random_.randrange(800) for _ in range(20)], damaged=True)
        opened = [status == OK for status, _ in session.run()[::4]]
        assert 50 < sum(opened) < 250


def test_same_table_every_time() -> None:
    assert tokenizer_table(make("smollm2")) == tokenizer_table(make("smollm2"))


def changed(kind: str, **parts: Any) -> Tokenizer:
    tokenizer = make(kind)
    definition = json.loads(tokenizer.definition)
    definition["model"] |= parts.pop("model", {})
    return replace(tokenizer, definition=json.dumps(definition | parts))


@pytest.mark.parametrize(
    ("kind", "parts", "named"),
    [
        ("gpt2", {"normalizer": {"type": "NFC"}}, "the normalizer NFC"),
        ("gemma", {"normalizer": {"type": "Lowercase"}}, "the normalizer Lowercase"),
        ("gpt2", {"pre_tokenizer": {"type": "Whitespace"}}, "the pre-tokenizer Whitespace"),
        (
            "gpt2",
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
            "add_prefix",
        ),
        ("gpt2", {"decoder": None}, "the decoder null"),
        ("gpt2", {"model": {"dropout": 0.1}}, "dropout"),
        ("gpt2", {"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix"),
        ("gemma", {"model": {"ignore_merges": True}}, "ignore_merges"),
        ("llama2", {"model": {"unk_token": "<none>"}}, "the unknown token '<none>'"),
    ],
)
def test_what_is_refused(kind: str, parts: dict[str, Any], named: str) -> None:
    with pytest.raises(TargetError, match=named) as caught:
        tokenizer_table(changed(kind, **parts))
    assert caught.value.hint


def test_byte_fallback_without_a_space_is_refused() -> None:
    with pytest.raises(TargetError, match="byte fallback without '\u2581'"):
        tokenizer_table(characters(byte_pieces=bytes(range(256)), space=False))


def test_a_token_that_the_model_lacks_is_refused_in_the_text(driver: Path) -> None:
    tokenizer = make("gpt2")
    definition = json.loads(tokenizer.definition)
    image = {**definition["added_tokens"][0], "id": tokenizer.size, "content": "<image>"}
    definition["added_tokens"].append(image)
    limited = Tokenizer(json.dumps(definition), SpecialTokens()).within(tokenizer.size)
    session = Session(driver, tokenizer_table(limited))
    session.encode("the cat <image> sat")
    session.encode("the cat <image sat")
    first, second = session.run()
    assert first[0] == BAD_TEXT and second == (OK, limited.encode("the cat <image sat"))


def test_other_models_and_tokens_are_refused() -> None:
    unigram = Backend(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    with pytest.raises(TargetError, match="a Unigram model"):
        tokenizer_table(Tokenizer(unigram.to_str(), SpecialTokens()))
    words = Backend(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(TargetError, match="a WordPiece model"):
        tokenizer_table(Tokenizer(words.to_str(), SpecialTokens()))
    backend = byte_level([], own=True)
    backend.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    with pytest.raises(TargetError, match=r"<mask>.*lstrip"):
        tokenizer_table(Tokenizer(backend.to_str(), SpecialTokens()))
    backend = gemma()
    backend.add_tokens([AddedToken("<late>", normalized=True)])
    with pytest.raises(TargetError, match="after normalizing"):
        tokenizer_table(Tokenizer(backend.to_str(), SpecialTokens()))
    pattern = byte_level([split(r"\p{L}+|.")], own=False)
    with pytest.raises(TargetError, match="the split pattern"):
        tokenizer_table(Tokenizer(pattern.to_str(), SpecialTokens()))


def test_needs_no_library(tmp_path: Path) -> None:
    """Freestanding C: nothing but memcpy, memcmp and memset is asked of the board."""
    if shutil.which("nm") is None:
        pytest.skip("no nm on this computer")
    source = str(RUNTIME / "lm_tokenizer.c")
    subprocess.run(
        [c_compiler(), *WARNINGS, "-ffreestanding", "-O2", "-fno-stack-protector", "-c", source, "-o", "a.o"],
        cwd=tmp_path,
        check=True,
    )
    listing = subprocess.run(["nm", "-u", "a.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    asked = {line.split()[-1].lstrip("_") for line in listing.splitlines()}
    assert asked - {"GLOBAL_OFFSET_TABLE_"} <= {"memcpy", "memcmp", "memset", "memmove"}
