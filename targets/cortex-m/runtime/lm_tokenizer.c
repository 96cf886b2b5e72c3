/* BPE as the `tokenizers` library computes it, over one read-only table; see lm_tokenizer.h. */
#include "lm_tokenizer.h"

#include <string.h>

/* ---- The table: a header, then arrays of little-endian integers, each at a multiple of four bytes. ---- */

#define MAGIC 0x4b544d4cu /* "LMTK" */
#define VERSION 1u
#define NO_ID UINT32_MAX

enum array_name {
    PIECES,      /* for each id and one more: 2 * start in POOL, plus 1 when the piece is one raw byte */
    POOL,        /* the bytes that tokens decode to, and the texts of added tokens */
    BYTE_IDS,    /* the id of each byte, or none: the alphabet of byte-level BPE, or byte fallback */
    CHARS,       /* code points that have an id, ascending */
    CHAR_IDS,    /* their ids */
    MERGE_LEFT,  /* merges, ascending by (left, right) */
    MERGE_RIGHT,
    MERGE_RANK,
    MERGE_NEW,   /* what a merge makes, by rank */
    WORDS,       /* ids whose pieces are taken whole before any merge, ascending by bytes */
    ADDED_START, /* texts of added tokens in POOL, ascending by bytes */
    ADDED_LENGTH,
    ADDED_ID,
    CLASSES, /* 16 * first code point + bits of enum char_class, for each run of code points of one class */
    PREFIX,
    STOP,
    ARRAYS
};

struct array {
    uint32_t start; /* bytes from the start of the table */
    uint32_t count; /* entries */
    uint32_t width; /* bytes an entry: 1, 2 or 4 */
};

struct header {
    uint32_t magic, version, size;
    uint32_t ids;        /* one more than the largest id */
    uint32_t kind;       /* enum kind */
    uint32_t lead;       /* enum lead */
    uint32_t words;      /* enum words */
    uint32_t pattern;    /* enum pattern */
    uint32_t digits;     /* GPT-2: 1 when each numeric character is a word; Llama 3: the most digits of a word */
    uint32_t unknown;    /* id of the unknown token, or NO_ID */
    uint32_t fuse;       /* unknown characters in a row are one token */
    uint32_t strip;      /* leading spaces that a decoded text loses */
    uint32_t first_bare; /* the first token of a decoded text loses all its spaces */
    uint32_t longest;    /* bytes of the longest piece */
    struct array arrays[ARRAYS];
};

/* What BPE starts from. */
enum kind { CHARACTERS = 1, BYTES = 2 };

/* Before what U+2581 is put: nothing; each part between added tokens; each that starts with no space; the text. */
enum lead { LEAD_NONE, LEAD_ALWAYS, LEAD_UNLESS_SPACE, LEAD_TEXT };

/* Where characters are cut before merging: nowhere; where a space follows another character; before each space. */
enum words { WORDS_WHOLE, WORDS_AT_SPACES, WORDS_AT_EACH_SPACE };

/* How bytes are cut before merging; 0: not at all. */
enum pattern { PATTERN_GPT2 = 1, PATTERN_LLAMA3 = 2 };

enum char_class { LETTER = 1, NUMBER = 2, SPACE = 4, NUMERIC = 8, OTHER = 16, END = 32 };

#define SPACE_MARK 0x2581u

static const struct header *header_of(const lm_tokenizer *tokenizer) {
    return (const struct header *)(const void *)tokenizer->table;
}

static uint32_t count_of(const lm_tokenizer *tokenizer, enum array_name name) {
    return header_of(tokenizer)->arrays[name].count;
}

/* Entry `index` of an array; 0 behind its end, which only a damaged table asks for. */
static uint32_t entry(const lm_tokenizer *tokenizer, enum array_name name, uint32_t index) {
    const struct array *array = &header_of(tokenizer)->arrays[name];
    const void *data = tokenizer->table + array->start;
    if (index >= array->count) return 0;
    if (array->width == 2) return ((const uint16_t *)data)[index];
    if (array->width == 4) return ((const uint32_t *)data)[index];
    return ((const uint8_t *)data)[index];
}

/* A run of bytes in the table. */
struct bytes {
    const uint8_t *data;
    uint32_t count;
};

/* `count` bytes of POOL; none where a damaged table reaches behind its end. */
static struct bytes pool(const lm_tokenizer *tokenizer, uint32_t start, uint32_t count) {
    const struct array *array = &header_of(tokenizer)->arrays[POOL];
    struct bytes found = {tokenizer->table + array->start, 0};
    if (start <= array->count && count <= array->count - start) {
        found.data += start;
        found.count = count;
    }
    return found;
}

/* What an id decodes to; `*raw` says whether it is one byte of a character. */
static struct bytes piece(const lm_tokenizer *tokenizer, uint32_t id, int *raw) {
    const uint32_t here = entry(tokenizer, PIECES, id), next = entry(tokenizer, PIECES, id + 1);
    *raw = here & 1;
    return pool(tokenizer, here / 2, next / 2 - here / 2);
}

int lm_tokenizer_open(lm_tokenizer *tokenizer, const void *table, size_t size) {
    const struct header *header = table;
    const struct array *arrays;
    int name;
    tokenizer->table = NULL;
    if (table == NULL || ((uintptr_t)table & 3) != 0 || size < sizeof *header) return LM_TOKENIZER_BAD_TABLE;
    if (header->magic != MAGIC || header->version != VERSION) return LM_TOKENIZER_BAD_TABLE;
    if (header->size > size || header->size < sizeof *header || header->ids > INT32_MAX) return LM_TOKENIZER_BAD_TABLE;
    arrays = header->arrays;
    for (name = 0; name < ARRAYS; name++) {
        const struct array *array = &arrays[name];
        if (array->width != 1 && array->width != 2 && array->width != 4) return LM_TOKENIZER_BAD_TABLE;
        if ((array->start & 3) != 0 || array->start > header->size) return LM_TOKENIZER_BAD_TABLE;
        if (array->count > (header->size - array->start) / array->width) return LM_TOKENIZER_BAD_TABLE;
    }
    if (arrays[PIECES].count != header->ids + 1 || arrays[POOL].width != 1) return LM_TOKENIZER_BAD_TABLE;
    if (arrays[CHARS].count != arrays[CHAR_IDS].count) return LM_TOKENIZER_BAD_TABLE;
    for (name = MERGE_LEFT; name <= MERGE_NEW; name++)
        if (arrays[name].count != arrays[MERGE_LEFT].count) return LM_TOKENIZER_BAD_TABLE;
    for (name = ADDED_START; name <= ADDED_ID; name++)
        if (arrays[name].count != arrays[ADDED_START].count) return LM_TOKENIZER_BAD_TABLE;
    if (header->kind != CHARACTERS && header->kind != BYTES) return LM_TOKENIZER_BAD_TABLE;
    if (header->kind == BYTES && arrays[BYTE_IDS].count != 256) return LM_TOKENIZER_BAD_TABLE;
    tokenizer->table = table;
    return LM_TOKENIZER_OK;
}

uint32_t lm_tokenizer_size(const lm_tokenizer *tokenizer) { return header_of(tokenizer)->ids; }

int lm_tokenizer_is_stop(const lm_tokenizer *tokenizer, uint32_t id) {
    uint32_t index;
    for (index = 0; index < count_of(tokenizer, STOP); index++)
        if (entry(tokenizer, STOP, index) == id) return 1;
    return 0;
}

/* ---- UTF-8 ---- */

/* Whether `count` (1 to 4) bytes are a whole character (1), the start of one (0), or neither (-1). */
static int utf8_state(const uint8_t *bytes, uint32_t count) {
    const uint8_t first = bytes[0];
    uint8_t low = 0x80, high = 0xbf; /* of the second byte */
    uint32_t wanted, index;
    if (first < 0x80) return count == 1 ? 1 : -1;
    if (first < 0xc2 || first > 0xf4) return -1;
    wanted = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    if (count > wanted || (count > 1 && (bytes[1] < low || bytes[1] > high))) return -1;
    for (index = 2; index < count; index++)
        if ((bytes[index] & 0xc0) != 0x80) return -1;
    return count == wanted;
}

/* Bytes of the character that valid UTF-8 starts with `first`. */
static uint32_t utf8_length(uint8_t first) { return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4; }

/* The character at the start of valid UTF-8. */
static uint32_t utf8_read(const uint8_t *bytes) {
    const uint32_t length = utf8_length(bytes[0]);
    uint32_t index, found = length == 1 ? bytes[0] : bytes[0] & (0xffu >> (length + 1));
    for (index = 1; index < length; index++) found = found << 6 | (bytes[index] & 0x3fu);
    return found;
}

static int utf8_valid(const uint8_t *text, size_t length) {
    size_t at = 0;
    while (at < length) {
        const uint32_t wanted = utf8_length(text[at]);
        if (wanted > length - at || utf8_state(text + at, wanted) != 1) return 0;
        at += wanted;
    }
    return 1;
}

/* ---- Merging one word ---- */

/* The word in work: its symbols in the first half of the scratch memory, ranks of neighbours in the second. */
struct word {
    const lm_tokenizer *tokenizer;
    lm_ids *out;
    size_t count;    /* symbols */
    size_t capacity; /* symbols that fit */
    int unknown;     /* unknown characters wait for their symbol, which comes in front of the next known one */
    int status;      /* the first error */
};

static void fail(struct word *word, int status) {
    if (word->status == LM_TOKENIZER_OK) word->status = status;
}

static void push_id(lm_ids *out, uint32_t id, const lm_tokenizer *tokenizer, int *status) {
    if (*status != LM_TOKENIZER_OK) return;
    if (id >= header_of(tokenizer)->ids)
        *status = LM_TOKENIZER_BAD_TABLE;
    else if (out->count >= out->capacity)
        *status = LM_TOKENIZER_IDS_FULL;
    else
        out->ids[out->count++] = id;
}

static void push_symbol(struct word *word, uint32_t id) {
    if (word->count < word->capacity)
        word->out->scratch[word->count++] = id;
    else
        fail(word, LM_TOKENIZER_SCRATCH_FULL);
}

static void flush_unknown(struct word *word) {
    if (word->unknown) push_symbol(word, header_of(word->tokenizer)->unknown);
    word->unknown = 0;
}

/* A character or byte that has no id: the unknown token, or nothing. */
static void push_unknown(struct word *word) {
    const struct header *header = header_of(word->tokenizer);
    if (header->unknown == NO_ID) return;
    if (!header->fuse) flush_unknown(word);
    word->unknown = 1;
}

static void push_known(struct word *word, uint32_t id) {
    flush_unknown(word);
    push_symbol(word, id);
}

static void push_byte(struct word *word, uint8_t byte) {
    const uint32_t id = entry(word->tokenizer, BYTE_IDS, byte);
    if (id < header_of(word->tokenizer)->ids)
        push_known(word, id);
    else
        push_unknown(word);
}

/* Whether byte fallback has an id for each byte of a character. */
static int has_bytes(const lm_tokenizer *tokenizer, const uint8_t *bytes, uint32_t length) {
    uint32_t byte;
    if (count_of(tokenizer, BYTE_IDS) == 0) return 0;
    for (byte = 0; byte < length; byte++)
        if (entry(tokenizer, BYTE_IDS, bytes[byte]) >= header_of(tokenizer)->ids) return 0;
    return 1;
}

/* Index of `wanted` in an ascending array, or its count. */
static uint32_t find(const lm_tokenizer *tokenizer, enum array_name name, uint32_t wanted) {
    const uint32_t count = count_of(tokenizer, name);
    uint32_t low = 0, high = count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (entry(tokenizer, name, middle) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && entry(tokenizer, name, low) == wanted ? low : count;
}

static void push_char(struct word *word, uint32_t code, const uint8_t *bytes, uint32_t length) {
    const lm_tokenizer *tokenizer = word->tokenizer;
    const uint32_t index = find(tokenizer, CHARS, code);
    uint32_t byte;
    if (index < count_of(tokenizer, CHARS))
        push_known(word, entry(tokenizer, CHAR_IDS, index));
    else if (has_bytes(tokenizer, bytes, length)) /* in front of unknown characters that wait, as the library has it */
        for (byte = 0; byte < length; byte++) push_symbol(word, entry(tokenizer, BYTE_IDS, bytes[byte]));
    else
        push_unknown(word);
}

/* Rank of the merge of two neighbours, or NO_ID. */
static uint32_t rank_of(const lm_tokenizer *tokenizer, uint32_t left, uint32_t right) {
    uint32_t low = 0, high = count_of(tokenizer, MERGE_LEFT);
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint32_t found_left = entry(tokenizer, MERGE_LEFT, middle);
        const uint32_t found_right = entry(tokenizer, MERGE_RIGHT, middle);
        if (found_left == left && found_right == right) return entry(tokenizer, MERGE_RANK, middle);
        if (found_left < left || (found_left == left && found_right < right))
            low = middle + 1;
        else
            high = middle;
    }
    return NO_ID;
}

/*
 * Merge the word's symbols, lowest rank first and leftmost first, append them to the output, and start a new word.
 * The time is quadratic in the symbols of one word.
 */
static void finish_word(struct word *word) {
    const lm_tokenizer *tokenizer = word->tokenizer;
    uint32_t *symbols = word->out->scratch, *ranks;
    size_t at, count;
    flush_unknown(word);
    count = word->count;
    word->count = 0;
    if (count == 0) return;
    ranks = symbols + word->capacity;
    for (at = 0; at + 1 < count; at++) ranks[at] = rank_of(tokenizer, symbols[at], symbols[at + 1]);
    while (count > 1) {
        size_t best = 0;
        for (at = 1; at + 1 < count; at++)
            if (ranks[at] < ranks[best]) best = at;
        if (ranks[best] == NO_ID) break;
        symbols[best] = entry(tokenizer, MERGE_NEW, ranks[best]);
        count--;
        for (at = best + 1; at < count; at++) symbols[at] = symbols[at + 1];
        for (at = best + 1; at + 1 < count; at++) ranks[at] = ranks[at + 1];
        if (best + 1 < count) ranks[best] = rank_of(tokenizer, symbols[best], symbols[best + 1]);
        if (best > 0) ranks[best - 1] = rank_of(tokenizer, symbols[best - 1], symbols[best]);
    }
    for (at = 0; at < count; at++) push_id(word->out, symbols[at], tokenizer, &word->status);
}

/* ---- Text between added tokens, characters: SentencePiece's way, with U+2581 for a space ---- */

static void encode_characters(struct word *word, const uint8_t *text, size_t length, int at_start) {
    static const uint8_t mark[3] = {0xe2, 0x96, 0x81};
    const struct header *header = header_of(word->tokenizer);
    const int spaced = text[0] == ' ' || (length >= 3 && memcmp(text, mark, 3) == 0);
    uint32_t last = 0; /* the last character of this word, 0 for none */
    size_t at = 0;
    if (header->lead == LEAD_ALWAYS || (header->lead == LEAD_UNLESS_SPACE && !spaced) ||
        (header->lead == LEAD_TEXT && at_start && !spaced)) {
        push_char(word, SPACE_MARK, mark, 3);
        last = SPACE_MARK;
    }
    while (at < length && word->status == LM_TOKENIZER_OK) {
        const uint32_t bytes = utf8_length(text[at]);
        const uint32_t code = text[at] == ' ' ? SPACE_MARK : utf8_read(text + at);
        if (code == SPACE_MARK && (last || at) &&
            (header->words == WORDS_AT_EACH_SPACE || (header->words == WORDS_AT_SPACES && last != SPACE_MARK)))
            finish_word(word);
        push_char(word, code, text[at] == ' ' ? mark : text + at, text[at] == ' ' ? 3 : bytes);
        last = code;
        at += bytes;
    }
    finish_word(word);
}

/* ---- Text between added tokens, bytes: words by a pattern, then the alphabet of 256 bytes ---- */

/* Text that is cut into words. */
struct reader {
    const lm_tokenizer *tokenizer;
    const uint8_t *text;
    size_t length;
    int digits_alone; /* a numeric character ends what is before it */
};

/* Class bits of the character at `at`: exactly one of LETTER, NUMBER, SPACE and OTHER, or END. */
static uint32_t class_at(const struct reader *reader, size_t at) {
    const lm_tokenizer *tokenizer = reader->tokenizer;
    uint32_t low = 0, high = count_of(tokenizer, CLASSES), code, bits;
    if (at >= reader->length) return END;
    code = utf8_read(reader->text + at);
    while (low < high) { /* the first run that starts behind the character */
        const uint32_t middle = low + (high - low) / 2;
        if (entry(tokenizer, CLASSES, middle) / 16 <= code)
            low = middle + 1;
        else
            high = middle;
    }
    bits = low > 0 ? entry(tokenizer, CLASSES, low - 1) & 15 : 0;
    if ((bits & NUMERIC) && reader->digits_alone) return END;
    bits &= LETTER | NUMBER | SPACE;
    return bits ? bits : OTHER;
}

static size_t next(const struct reader *reader, size_t at) { return at + utf8_length(reader->text[at]); }

/* End of the run of one class that starts at `at`. */
static size_t run(const struct reader *reader, size_t at, uint32_t wanted) {
    while (class_at(reader, at) == wanted) at = next(reader, at);
    return at;
}

static int is_byte(const struct reader *reader, size_t at, uint8_t byte) {
    return at < reader->length && reader->text[at] == byte;
}

static int is_newline(const struct reader *reader, size_t at) {
    return is_byte(reader, at, '\n') || is_byte(reader, at, '\r');
}

/* Bytes of an English ending ('s 't 're 've 'm 'll 'd) at `at`, or 0. In any case, U+017F is an s too. */
static size_t ending(const struct reader *reader, size_t at, int any_case) {
    static const char endings[7][3] = {"s", "t", "re", "ve", "m", "ll", "d"};
    const uint8_t fold = any_case ? 0x20 : 0;
    const size_t left = reader->length - at - 1;
    const uint8_t *text = reader->text + at + 1;
    int index;
    if (!is_byte(reader, at, '\'')) return 0;
    if (any_case && left >= 2 && text[0] == 0xc5 && text[1] == 0xbf) return 3;
    for (index = 0; index < 7; index++) {
        const char *wanted = endings[index];
        if (left >= 1 && (text[0] | fold) == wanted[0] && wanted[1] == 0) return 2;
        if (left >= 2 && (text[0] | fold) == wanted[0] && (text[1] | fold) == wanted[1]) return 3;
    }
    return 0;
}

/* End of a run of white space that starts at `at`, without its last character where a word follows. */
static size_t spaces(const struct reader *reader, size_t at) {
    size_t end = at, last = at;
    while (class_at(reader, end) == SPACE) {
        last = end;
        end = next(reader, end);
    }
    return class_at(reader, end) == END || last == at ? end : last;
}

/* GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t gpt2_word(const struct reader *reader, size_t at) {
    const size_t found = ending(reader, at, 0), start = at + is_byte(reader, at, ' ');
    const uint32_t kind = class_at(reader, start);
    if (found) return at + found;
    return kind == SPACE || kind == END ? spaces(reader, at) : run(reader, start, kind);
}

/*
 * Llama 3 and Qwen2: the endings in any case|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+
 */
static size_t llama3_word(const struct reader *reader, size_t at, uint32_t digits) {
    const size_t found = ending(reader, at, 1), behind = next(reader, at);
    const uint32_t kind = class_at(reader, at);
    size_t end = at + is_byte(reader, at, ' '), newline = 0;
    if (found) return at + found;
    if (kind == LETTER) return run(reader, at, LETTER);
    if (kind != NUMBER && !is_newline(reader, at) && class_at(reader, behind) == LETTER)
        return run(reader, behind, LETTER);
    if (kind == NUMBER) {
        for (end = at; digits > 0 && class_at(reader, end) == NUMBER; digits--) end = next(reader, end);
        return end;
    }
    if (class_at(reader, end) == OTHER) {
        end = run(reader, end, OTHER);
        while (is_newline(reader, end)) end++;
        return end;
    }
    for (end = at; class_at(reader, end) == SPACE; end = next(reader, end))
        if (is_newline(reader, end)) newline = end + 1;
    return newline ? newline : spaces(reader, at);
}

/* End of the word that starts at `at`; always behind it. */
static size_t word_end(struct reader *reader, size_t at) {
    const struct header *header = header_of(reader->tokenizer);
    size_t end;
    if (header->pattern == PATTERN_LLAMA3)
        end = llama3_word(reader, at, header->digits);
    else if (header->pattern != PATTERN_GPT2)
        end = reader->length;
    else {
        reader->digits_alone = header->digits != 0;
        end = class_at(reader, at) == END ? at : gpt2_word(reader, at);
    }
    return end > at ? end : next(reader, at);
}

/* Bytes as strings compare: negative, 0 or positive. */
static int compare(const uint8_t *left, size_t left_count, const uint8_t *right, size_t right_count) {
    const int found = memcmp(left, right, left_count < right_count ? left_count : right_count);
    if (found != 0) return found;
    return left_count < right_count ? -1 : left_count > right_count;
}

/* The id whose piece is this whole word, or NO_ID. */
static uint32_t whole_word(const lm_tokenizer *tokenizer, const uint8_t *text, size_t length) {
    uint32_t low = 0, high = count_of(tokenizer, WORDS);
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2, id = entry(tokenizer, WORDS, middle);
        int raw, order;
        const struct bytes found = piece(tokenizer, id, &raw);
        order = compare(found.data, found.count, text, length);
        if (order == 0) return id;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NO_ID;
}

static void encode_bytes(struct word *word, const uint8_t *text, size_t length) {
    struct reader reader = {word->tokenizer, text, length, 0};
    size_t at = 0;
    while (at < length && word->status == LM_TOKENIZER_OK) {
        const size_t end = word_end(&reader, at);
        const uint32_t whole = whole_word(word->tokenizer, text + at, end - at);
        if (whole != NO_ID)
            push_id(word->out, whole, word->tokenizer, &word->status);
        else {
            for (; at < end; at++) push_byte(word, text[at]);
            finish_word(word);
        }
        at = end;
    }
}

/* ---- Whole texts ---- */

/* The longest added token that the text starts with: its bytes, with the id in `*id`, or 0. */
static size_t added_token(const lm_tokenizer *tokenizer, const uint8_t *text, size_t length, uint32_t *id) {
    uint32_t low = 0, high = count_of(tokenizer, ADDED_START); /* the tokens that agree on the first `depth` bytes */
    size_t depth, found = 0;
    for (depth = 0; low < high && depth < length; depth++) {
        uint32_t bounds[2], side;
        for (side = 0; side < 2; side++) { /* the first token whose byte is not less, then the first that is greater */
            uint32_t from = low, to = high;
            while (from < to) {
                const uint32_t middle = from + (to - from) / 2;
                const struct bytes token =
                    pool(tokenizer, entry(tokenizer, ADDED_START, middle), entry(tokenizer, ADDED_LENGTH, middle));
                if (depth >= token.count || token.data[depth] < text[depth] + side)
                    from = middle + 1;
                else
                    to = middle;
            }
            bounds[side] = from;
        }
        low = bounds[0];
        high = bounds[1];
        if (low < high && entry(tokenizer, ADDED_LENGTH, low) == depth + 1) {
            found = depth + 1;
            *id = entry(tokenizer, ADDED_ID, low);
        }
    }
    return found;
}

int lm_tokenizer_prefix(const lm_tokenizer *tokenizer, lm_ids *out) {
    const size_t before = out->count;
    int status = LM_TOKENIZER_OK;
    uint32_t index;
    for (index = 0; index < count_of(tokenizer, PREFIX); index++)
        push_id(out, entry(tokenizer, PREFIX, index), tokenizer, &status);
    if (status != LM_TOKENIZER_OK) out->count = before;
    return status;
}

int lm_tokenizer_encode(const lm_tokenizer *tokenizer, const char *text, size_t length, lm_ids *out) {
    const uint8_t *bytes = (const uint8_t *)text;
    struct word word = {tokenizer, out, 0, out->scratch_capacity / 2, 0, LM_TOKENIZER_OK};
    const size_t before = out->count;
    size_t start = 0, at = 0;
    if (!utf8_valid(bytes, length)) return LM_TOKENIZER_BAD_TEXT;
    while (start < length && word.status == LM_TOKENIZER_OK) {
        uint32_t id = NO_ID;
        size_t token = 0;
        while (at < length && (token = added_token(tokenizer, bytes + at, length - at, &id)) == 0) at++;
        if (at > start && header_of(tokenizer)->kind == BYTES)
            encode_bytes(&word, bytes + start, at - start);
        else if (at > start)
            encode_characters(&word, bytes + start, at - start, start == 0);
        if (token && id >= header_of(tokenizer)->ids)
            fail(&word, LM_TOKENIZER_BAD_TEXT);
        else if (token)
            push_id(out, id, tokenizer, &word.status);
        start = at += token;
    }
    if (word.status != LM_TOKENIZER_OK) out->count = before;
    return word.status;
}

/* ---- Decoding ---- */

/* Where decoded bytes go. */
struct writer {
    lm_decoder *decoder;
    char *out;
    size_t capacity, count;
    int full;
};

static void write_bytes(struct writer *writer, const uint8_t *bytes, uint32_t count) {
    while (count > 0 && writer->decoder->strip > 0) {
        if (bytes[0] != ' ') {
            writer->decoder->strip = 0;
            break;
        }
        bytes++;
        count--;
        writer->decoder->strip--;
    }
    if (count > writer->capacity - writer->count)
        writer->full = 1;
    else if (count > 0) {
        memcpy(writer->out + writer->count, bytes, count);
        writer->count += count;
    }
}

static void write_broken(struct writer *writer, uint32_t times) {
    static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd};
    while (times-- > 0) write_bytes(writer, replacement, 3);
}

/*
 * One more byte of a character. Byte-level BPE replaces what can start no character as a whole; byte fallback replaces
 * each byte, and all that follow in the same run of byte tokens.
 */
static void write_byte(struct writer *writer, uint8_t byte, int each) {
    lm_decoder *decoder = writer->decoder;
    int state;
    decoder->held[decoder->held_count++] = byte;
    state = decoder->broken ? -1 : utf8_state(decoder->held, decoder->held_count);
    if (state < 0 && !each && decoder->held_count > 1) { /* this byte may start another character */
        write_broken(writer, 1);
        decoder->held[0] = byte;
        decoder->held_count = 1;
        state = utf8_state(decoder->held, 1);
    }
    if (state == 0) return;
    if (state > 0)
        write_bytes(writer, decoder->held, decoder->held_count);
    else
        write_broken(writer, each ? decoder->held_count : 1);
    decoder->broken = state < 0 && each;
    decoder->held_count = 0;
}

/* The end of a run of bytes. */
static void write_rest(struct writer *writer, int each) {
    lm_decoder *decoder = writer->decoder;
    write_broken(writer, each ? decoder->held_count : decoder->held_count > 0);
    decoder->held_count = 0;
    decoder->broken = 0;
}

/* All or nothing: where the bytes did not fit, the decoder becomes what it was. */
static int finish_write(struct writer *writer, const lm_decoder *before, size_t *length) {
    *length = writer->full ? 0 : writer->count;
    if (!writer->full) return LM_TOKENIZER_OK;
    *writer->decoder = *before;
    return LM_TOKENIZER_OUTPUT_FULL;
}

size_t lm_tokenizer_most_bytes(const lm_tokenizer *tokenizer) {
    return 3 * ((size_t)header_of(tokenizer)->longest + sizeof ((lm_decoder *)0)->held);
}

void lm_decoder_start(const lm_tokenizer *tokenizer, lm_decoder *decoder) {
    memset(decoder, 0, sizeof *decoder);
    decoder->strip = (uint8_t)header_of(tokenizer)->strip;
    decoder->first = 1;
}

int lm_decoder_token(
    const lm_tokenizer *tokenizer, lm_decoder *decoder, uint32_t id, char *out, size_t capacity, size_t *length) {
    const struct header *header = header_of(tokenizer);
    const lm_decoder before = *decoder;
    struct writer writer = {decoder, out, capacity, 0, 0};
    struct bytes found = {NULL, 0};
    int raw = 0;
    uint32_t at;
    if (id < header->ids) found = piece(tokenizer, id, &raw);
    if (found.count > 0) {
        const int bare = header->first_bare && decoder->first;
        if (header->kind == CHARACTERS && !raw) write_rest(&writer, 1);
        for (at = 0; at < found.count; at++) {
            if (header->kind == BYTES || raw)
                write_byte(&writer, found.data[at], header->kind == CHARACTERS);
            else if (!bare || found.data[at] != ' ')
                write_bytes(&writer, found.data + at, 1);
        }
        decoder->first = 0;
    }
    return finish_write(&writer, &before, length);
}

int lm_decoder_end(const lm_tokenizer *tokenizer, lm_decoder *decoder, char *out, size_t capacity, size_t *length) {
    const lm_decoder before = *decoder;
    struct writer writer = {decoder, out, capacity, 0, 0};
    write_rest(&writer, header_of(tokenizer)->kind == CHARACTERS);
    return finish_write(&writer, &before, length);
}
