/* unetserve-worker: one model instance on one device. Started by unetserve; with --describe, a
 * question about a model. */
#include "workers/program.h"

#include <unistd.h>

int main(int argc, char **argv)
{
    struct program program = {.answer_fd = STDOUT_FILENO, .retire_fd = -1};
    return program_run(argc, argv, &program);
}
