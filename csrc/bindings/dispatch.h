// Sends a checked call to the CPU or the CUDA kernel, without the interpreter lock.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "bindings/arguments.h"
#include "common/stream.h"

#if defined(FOCUS_WITH_CUDA) && !defined(FOCUS_EMULATE_CUDA)
#include "common/cuda_error.h"
#endif

namespace focus::bindings {

#if defined(FOCUS_WITH_CUDA) && !defined(FOCUS_EMULATE_CUDA)
// Makes the tensors' device current for a launch, and restores the caller's.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_));
        if (device != previous_) {
            check(cudaSetDevice(device));
            changed_ = true;
        }
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(previous_);
    }
    DeviceGuard(DeviceGuard const&) = delete;
    DeviceGuard& operator=(DeviceGuard const&) = delete;

  private:
    static void check(cudaError_t error) {
        if (error == cudaSuccess) return;
        cudaGetLastError();  // else the next launch of this thread would report it
        throw std::runtime_error("focus: CUDA: " + explain_cuda_error(error));
    }
    int previous_ = 0;
    bool changed_ = false;
};
#endif

// Runs `on_cpu(threads)` or `on_cuda(stream)`. The CUDA kernels are float32 only; double is the CPU's, for gradient checks.
template <typename T, typename OnCpu, typename OnCuda>
void dispatch(Arguments const& arguments, OnCpu const& on_cpu, OnCuda const& on_cuda) {
    Target const& target = arguments.target();
    bool const cuda = arguments.runs_on_cuda<T>();
#if defined(FOCUS_WITH_CUDA)
    if (cuda) {
        if constexpr (std::is_same_v<T, float>) {
#if !defined(FOCUS_EMULATE_CUDA)
            DeviceGuard guard(target.device_index);
#endif
            py::gil_scoped_release release;
            on_cuda(reinterpret_cast<Stream>(target.stream));
        } else {
            arguments.fail("the tensors", "are float64 on a CUDA device; expected float32 there (float64 is supported on the CPU)");
        }
        return;
    }
#else
    (void)on_cuda;
    if (cuda) {
        arguments.fail("the tensors",
                       "are on a CUDA device, and this build of focus has no CUDA kernels. Reinstall the package where nvcc is found (set "
                       "FOCUS_CUDA=ON to insist), or move the tensors to the CPU");
    }
#endif
    py::gil_scoped_release release;
    on_cpu(target.threads);
}

// The CUDA half of a dispatch, as a generic lambda: its body is compiled only for float32 and only in a build with CUDA.
#if defined(FOCUS_WITH_CUDA)
#define FOCUS_ON_CUDA(call)                           \
    [&]([[maybe_unused]] auto stream) {               \
        if constexpr (std::is_same_v<T, float>) call; \
    }
#else
#define FOCUS_ON_CUDA(call) nullptr
#endif

}  // namespace focus::bindings
