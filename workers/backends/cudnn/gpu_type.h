/* Element types of a network on a GPU; also read by the kernels' compiler. */
#ifndef GPU_TYPE_H
#define GPU_TYPE_H

enum gpu_type { GPU_F32, GPU_F16, GPU_BF16 };

/* Channels of every image in memory are a multiple of this: what tensor cores want, and one or two
 * words of 16 bytes that no kernel has to cut. */
#define GPU_GRANULE 16u

#endif
