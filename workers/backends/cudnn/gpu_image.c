/* The kernels as nvcc made them, for every architecture, inside this library. The Makefile says
 * where the file lies. */
extern const unsigned char gpu_image_start[];

__asm__(".section .rodata\n"
        ".balign 64\n"
        ".globl gpu_image_start\n"
        ".hidden gpu_image_start\n"
        "gpu_image_start:\n"
        ".incbin \"" GPU_IMAGE_FILE "\"\n"
        ".previous\n");
