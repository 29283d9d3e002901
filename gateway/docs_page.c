#include "gateway/docs_page.h"

#include "gateway/docs_files.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* What no other page can know beforehand. False: the kernel has no random bytes yet. */
static bool make_nonce(char nonce[33])
{
    unsigned char random[16];
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        return false;
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(nonce + 2 * i, 3, "%02x", random[i]);
    return true;
}

/* The page has these words where the rest belongs. */
static bool put_word(FILE *out, const char *word, size_t size, const char *nonce)
{
    struct docs_file file = {.text = NULL};
    if (size == 5 && strncmp(word, "STYLE", 5) == 0)
        file = docs_file(DOCS_STYLE);
    else if (size == 6 && strncmp(word, "SCRIPT", 6) == 0)
        file = docs_file(DOCS_SCRIPT);
    else if (size == 5 && strncmp(word, "NONCE", 5) == 0)
        file = (struct docs_file){nonce, strlen(nonce)};
    if (file.text)
        fwrite(file.text, 1, file.size, out);
    return file.text != NULL;
}

static void put_page(FILE *out, const char *nonce)
{
    const char *at = docs_file(DOCS_PAGE).text;
    const char *mark;
    while ((mark = strchr(at, '@'))) {
        size_t size = strspn(mark + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        fwrite(at, 1, (size_t)(mark - at), out);
        at = mark + 1;
        if (mark[1 + size] == '@' && put_word(out, mark + 1, size, nonce))
            at = mark + 1 + size + 1;
        else
            fputc('@', out);
    }
    fputs(at, out);
}

char *docs_page(char *policy, size_t policy_size)
{
    char nonce[33];
    char *text = NULL;
    size_t size;
    FILE *out = make_nonce(nonce) ? open_memstream(&text, &size) : NULL;
    if (!out)
        return NULL;
    put_page(out, nonce);
    bool failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    snprintf(
        policy, policy_size,
        "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        nonce, nonce);
    return text;
}
