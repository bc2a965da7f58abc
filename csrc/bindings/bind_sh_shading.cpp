#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "sh_shading/sh_shading.h"

namespace focus::bindings {

namespace {

template <typename T>
void forward(Arguments& arguments, py::object normals, py::object albedo, py::object coefficients, py::object colors) {
    ShShadingParameters<T> p{};
    p.normals = arguments.view<T const, 3>("normals", normals, {kAny, kAny, 3});
    int64_t const batch = p.normals.size[0], vertex_count = p.normals.size[1];
    p.albedo = arguments.view<T const, 3>("albedo", albedo, {batch, vertex_count, 3});
    p.coefficients = arguments.view<T const, 3>("coefficients", coefficients, {batch, 3, kShBands});
    p.colors = arguments.view<T, 3>("colors", colors, {batch, vertex_count, 3});
    dispatch<T>(arguments, [&](int threads) { sh_shading_cpu(p, threads); }, FOCUS_ON_CUDA(sh_shading_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object normals, py::object albedo, py::object coefficients, py::object grad_colors,
              py::object grad_normals, py::object grad_albedo, py::object partial_coefficients, py::object grad_coefficients) {
    ShShadingBackwardParameters<T> p{};
    p.normals = arguments.view<T const, 3>("normals", normals, {kAny, kAny, 3});
    int64_t const batch = p.normals.size[0], vertex_count = p.normals.size[1];
    p.albedo = arguments.view<T const, 3>("albedo", albedo, {batch, vertex_count, 3});
    p.coefficients = arguments.view<T const, 3>("coefficients", coefficients, {batch, 3, kShBands});
    p.grad_colors = arguments.view<T const, 3>("grad_colors", grad_colors, {batch, vertex_count, 3});
    p.grad_normals = arguments.optional<T, 3>("grad_normals", grad_normals, {batch, vertex_count, 3});
    p.grad_albedo = arguments.optional<T, 3>("grad_albedo", grad_albedo, {batch, vertex_count, 3});
    p.grad_coefficients = arguments.optional<T, 3>("grad_coefficients", grad_coefficients, {batch, 3, kShBands});
    if (p.grad_coefficients) {
        int64_t const chunks = (vertex_count + kShChunk - 1) / kShChunk;
        p.partial_coefficients = arguments.view<T, 4>("partial_coefficients", partial_coefficients, {batch, chunks, 3, kShBands});
    }
    dispatch<T>(arguments, [&](int threads) { sh_shading_backward_cpu(p, threads); }, FOCUS_ON_CUDA(sh_shading_backward_cuda(p, stream)));
}

template <typename T>
void tangent(Arguments& arguments, py::object normals, py::object albedo, py::object coefficients, py::object normals_tangent,
             py::object albedo_tangent, py::object coefficients_tangent, py::object colors_tangent) {
    ShShadingTangentParameters<T> p{};
    p.normals = arguments.view<T const, 3>("normals", normals, {kAny, kAny, 3});
    int64_t const batch = p.normals.size[0], vertex_count = p.normals.size[1];
    p.albedo = arguments.view<T const, 3>("albedo", albedo, {batch, vertex_count, 3});
    p.coefficients = arguments.view<T const, 3>("coefficients", coefficients, {batch, 3, kShBands});
    p.normals_tangent = arguments.optional<T const, 3>("normals_tangent", normals_tangent, {batch, vertex_count, 3});
    p.albedo_tangent = arguments.optional<T const, 3>("albedo_tangent", albedo_tangent, {batch, vertex_count, 3});
    p.coefficients_tangent = arguments.optional<T const, 3>("coefficients_tangent", coefficients_tangent, {batch, 3, kShBands});
    p.colors_tangent = arguments.view<T, 3>("colors_tangent", colors_tangent, {batch, vertex_count, 3});
    dispatch<T>(arguments, [&](int threads) { sh_shading_tangent_cpu(p, threads); }, FOCUS_ON_CUDA(sh_shading_tangent_cuda(p, stream)));
}

}  // namespace

void bind_sh_shading(py::module_& module) {
    module.attr("SH_CHUNK") = kShChunk;
    module.def("sh_shading",
               [](py::object normals, py::object albedo, py::object coefficients, py::object colors, int threads, std::uintptr_t stream) {
                   Arguments arguments("sh_shading", threads, stream);
                   auto const call = arguments.is_double("normals", normals) ? forward<double> : forward<float>;
                   call(arguments, normals, albedo, coefficients, colors);
               });
    module.def("sh_shading_backward", [](py::object normals, py::object albedo, py::object coefficients, py::object grad_colors,
                                         py::object grad_normals, py::object grad_albedo, py::object partial_coefficients,
                                         py::object grad_coefficients, int threads, std::uintptr_t stream) {
        Arguments arguments("sh_shading_backward", threads, stream);
        auto const call = arguments.is_double("normals", normals) ? backward<double> : backward<float>;
        call(arguments, normals, albedo, coefficients, grad_colors, grad_normals, grad_albedo, partial_coefficients, grad_coefficients);
    });
    module.def("sh_shading_tangent",
               [](py::object normals, py::object albedo, py::object coefficients, py::object normals_tangent, py::object albedo_tangent,
                  py::object coefficients_tangent, py::object colors_tangent, int threads, std::uintptr_t stream) {
                   Arguments arguments("sh_shading_tangent", threads, stream);
                   auto const call = arguments.is_double("normals", normals) ? tangent<double> : tangent<float>;
                   call(arguments, normals, albedo, coefficients, normals_tangent, albedo_tangent, coefficients_tangent, colors_tangent);
               });
}

}  // namespace focus::bindings
