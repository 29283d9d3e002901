/*
 * What cuDNN looks up in libcuda.so.1 when it plans engines that are compiled at run time, and
 * calls on a device only. Here they are there, so that it does not complain, and refuse.
 */
#define NOT_SUPPORTED 801 /* as cuda.h has it; its declarations would not fit these */

#define REFUSE(name)                                                                               \
    __attribute__((visibility("default"))) int name(void);                                         \
    int name(void)                                                                                 \
    {                                                                                              \
        return NOT_SUPPORTED;                                                                      \
    }

REFUSE(cuCtxGetCurrent)
REFUSE(cuCtxGetLimit)
REFUSE(cuCtxPopCurrent)
REFUSE(cuCtxPushCurrent)
REFUSE(cuGetErrorName)
REFUSE(cuKernelGetAttribute)
REFUSE(cuKernelSetAttribute)
REFUSE(cuLaunchCooperativeKernel)
REFUSE(cuLaunchKernelEx)
REFUSE(cuLibraryGetKernel)
REFUSE(cuLibraryLoadData)
REFUSE(cuLibraryLoadFromFile)
REFUSE(cuLibraryUnload)
REFUSE(cuLinkAddData)
REFUSE(cuLinkComplete)
REFUSE(cuLinkCreate)
REFUSE(cuLinkDestroy)
REFUSE(cuOccupancyMaxPotentialClusterSize)
REFUSE(cuStreamGetCtx)
