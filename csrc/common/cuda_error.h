// What an error of the CUDA runtime means for whoever installed this build.
#pragma once

#include <cuda_runtime.h>

#include <string>

namespace focus {

inline std::string cuda_version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

inline std::string explain_cuda_error(cudaError_t error) {
    std::string text = cudaGetErrorString(error);
    std::string const runtime = cuda_version_text(CUDART_VERSION), build = "this build of focus has the runtime of CUDA " + runtime;
    if (error == cudaErrorInsufficientDriver) {
        int driver = 0;
        cudaDriverGetVersion(&driver);
        std::string const serves =
            driver ? "the driver here serves CUDA up to " + cuda_version_text(driver) : "no driver is installed here";
        text += ": " + serves + ", and " + build + ": install a newer driver, or build focus with an nvcc that is no newer than the driver";
    } else if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion) {
        int device = 0;
        cudaDeviceProp card{};
        bool const known = cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&card, device) == cudaSuccess;
        std::string const number = std::to_string(card.major) + std::to_string(card.minor);
        text += ": " + build + " and kernels for the architectures " FOCUS_CUDA_ARCHITECTURES;
        if (known) text += ", and the card is a " + std::string(card.name) + " of architecture " + number;
        text += ": build focus on this machine, or with FOCUS_CUDA_ARCHITECTURES=" + (known ? number : std::string("that of the card"));
    }
    return text;
}

}  // namespace focus
