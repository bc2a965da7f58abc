// focus._C: the kernels as plain functions of DLPack capsules. Torch is not linked and not known here; focus/ops registers the torch
// operators that call this module.
#include <pybind11/pybind11.h>

#include <string>

#include "bindings/bind.h"
#include "bindings/build_info.h"
#include "common/simd.h"

#if defined(FOCUS_WITH_CUDA) && !defined(FOCUS_EMULATE_CUDA)
#include "common/cuda_error.h"
#endif

PYBIND11_MODULE(FOCUS_MODULE_NAME, module) {
    using namespace focus::bindings;
    module.doc() = "Kernels of FOCUS; use them through focus.ops.";
    bind_topology(module);
    bind_rasterize(module);
    bind_interpolate(module);
    bind_render(module);
    bind_antialias(module);
    bind_vertex_normals(module);
    bind_sh_shading(module);
    bind_neighbor_min(module);
    bind_masked_photometric(module);
    bind_outlier_robust(module);

#if defined(FOCUS_EMULATE_CUDA)
    module.attr("cuda_version") = "emulated";
#elif defined(FOCUS_WITH_CUDA)
    module.attr("cuda_version") = focus::cuda_version_text(CUDART_VERSION);
#else
    module.attr("cuda_version") = pybind11::none();
#endif
    module.def("cuda_driver", []() -> std::string {
#if defined(FOCUS_WITH_CUDA) && !defined(FOCUS_EMULATE_CUDA)
        int version = 0;
        if (cudaDriverGetVersion(&version) == cudaSuccess && version) return focus::cuda_version_text(version);
#endif
        return "";
    });
    std::string const missing = FOCUS_CUDA_MISSING;
    module.attr("cuda_missing") = missing.empty() ? pybind11::object(pybind11::none()) : pybind11::object(pybind11::str(missing));
    module.attr("cuda_architectures") = FOCUS_CUDA_ARCHITECTURES;
    module.attr("compiler") = __VERSION__;
    module.def("uses_avx512", [] { return focus::uses_avx2() && focus::uses_avx512(); });
    module.def(
        "set_avx512", [](bool wanted) { return (focus::uses_avx512() = wanted && focus::processor_has_avx512()) && focus::uses_avx2(); },
        pybind11::arg("wanted"), "As set_avx2, of the loops that have AVX-512 code; it is used only where AVX2 is.");
    module.def("uses_avx2", [] { return focus::uses_avx2().load(); });
    module.def(
        "set_avx2", [](bool wanted) { return focus::uses_avx2() = wanted && focus::processor_has_avx2(); }, pybind11::arg("wanted"),
        "Chooses the CPU kernels' vector code for the whole process; returns whether AVX2 is used now.");
}
