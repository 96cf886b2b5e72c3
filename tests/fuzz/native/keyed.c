/* The loader that was built with a key: what it takes needs a tag, which the fuzzer does not find. */
#include "loader.c"
