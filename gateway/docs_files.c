#include "gateway/docs_files.h"

/* The assembler puts them in, from the top of the tree, where the compiler runs. */
#define EMBED(symbol, path)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".local " #symbol "\n"                                                                 \
            ".local " #symbol "_end\n" #symbol ":\n"                                               \
            ".incbin \"" path "\"\n" #symbol "_end:\n"                                             \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const char symbol[], symbol##_end[]

EMBED(docs_openapi, "gateway/docs/openapi.json");
EMBED(docs_page, "gateway/docs/page.html");
EMBED(docs_style, "gateway/docs/page.css");
EMBED(docs_script, "gateway/docs/page.js");

struct docs_file docs_file(enum docs_name name)
{
    static const char *const places[][2] = {
        [DOCS_OPENAPI] = {docs_openapi, docs_openapi_end},
        [DOCS_PAGE] = {docs_page, docs_page_end},
        [DOCS_STYLE] = {docs_style, docs_style_end},
        [DOCS_SCRIPT] = {docs_script, docs_script_end},
    };
    return (struct docs_file){places[name][0], (size_t)(places[name][1] - places[name][0])};
}
