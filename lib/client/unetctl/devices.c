/* unetctl devices: which GPUs this machine has, and how a configuration names them. */
#include "command.h"

#include "lib/gpu_list.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const char help_text[] =
    "usage: unetctl devices [--json]\n"
    "\n"
    "  Lists the GPUs of this machine that workers can be given, and what key 'devices' calls\n"
    "  them: index or UUID. Where MIG is on, each instance is one. CUDA_VISIBLE_DEVICES counts.\n"
    "\n"
    "  --json  as one line of JSON\n";

/* "0-7,16" of a bit each. */
static void print_cpus(const struct gpu_entry *entry)
{
    bool any = false;
    for (unsigned i = 0; i < GPU_CPU_WORDS * 64; i++) {
        unsigned last = i;
        if (!(entry->cpus[i / 64] >> i % 64 & 1))
            continue;
        while (last + 1 < GPU_CPU_WORDS * 64 &&
               (entry->cpus[(last + 1) / 64] >> (last + 1) % 64 & 1))
            last++;
        printf(last > i ? "%s%u-%u" : "%s%u", any ? "," : "", i, last);
        any = true;
        i = last;
    }
    printf(any ? "\n" : "-\n");
}

static void print_table(const struct gpu_list *list)
{
    printf("%-6s %-41s %-28s %9s %5s  %s\n", "index", "uuid", "name", "MiB", "node",
           "cores near it");
    for (uint32_t i = 0; i < list->count; i++) {
        const struct gpu_entry *entry = &list->entries[i];
        char node[16] = "-";
        if (entry->node >= 0)
            snprintf(node, sizeof node, "%d", entry->node);
        printf("%-6s %-41s %-28s %9" PRIu64 " %5s  ", entry->index, entry->uuid, entry->name,
               entry->memory_bytes >> 20, node);
        print_cpus(entry);
    }
}

static int print_json(const struct gpu_list *list)
{
    char *text = gpu_list_to_json(list);
    if (!text)
        return command_fail(EX_OSERR, "out of memory");
    puts(text);
    free(text);
    return EX_OK;
}

int command_devices(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    static struct gpu_list list;
    bool json = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help_text, stdout);
            return EX_OK;
        }
        if (option != 'j')
            return command_bad_option(option);
        json = true;
    }
    if (optind < argc)
        return command_fail(EX_USAGE, "devices takes no arguments");
    gpu_list_ask(&list);
    if (list.error[0])
        return command_fail(EX_UNAVAILABLE, "%s", list.error);
    if (json)
        return print_json(&list);
    print_table(&list);
    return EX_OK;
}
