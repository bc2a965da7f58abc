#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "vertex_normals/vertex_normals.h"

namespace focus::bindings {

namespace {

template <typename T>
void forward(Arguments& arguments, py::object vertices, py::object faces, py::object offsets, py::object corners, py::object normals) {
    VertexNormalsParameters<T> p{};
    p.vertices = arguments.view<T const, 3>("vertices", vertices, {kAny, kAny, 3});
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, p.vertices.size[1]);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    p.normals = arguments.view<T, 3>("normals", normals, {p.vertices.size[0], p.vertices.size[1], 3});
    dispatch<T>(arguments, [&](int threads) { vertex_normals_cpu(p, threads); }, FOCUS_ON_CUDA(vertex_normals_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object vertices, py::object faces, py::object offsets, py::object corners, py::object grad_normals,
              py::object grad_sums, py::object grad_vertices) {
    VertexNormalsBackwardParameters<T> p{};
    p.vertices = arguments.view<T const, 3>("vertices", vertices, {kAny, kAny, 3});
    int64_t const batch = p.vertices.size[0], vertex_count = p.vertices.size[1];
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, p.vertices.size[1]);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    p.grad_normals = arguments.view<T const, 3>("grad_normals", grad_normals, {batch, vertex_count, 3});
    p.grad_sums = arguments.view<T, 3>("grad_sums", grad_sums, {batch, vertex_count, 3});
    p.grad_vertices = arguments.view<T, 3>("grad_vertices", grad_vertices, {batch, vertex_count, 3});
    dispatch<T>(
        arguments, [&](int threads) { vertex_normals_backward_cpu(p, threads); }, FOCUS_ON_CUDA(vertex_normals_backward_cuda(p, stream)));
}

template <typename T>
void tangent(Arguments& arguments, py::object vertices, py::object faces, py::object offsets, py::object corners,
             py::object vertices_tangent, py::object normals_tangent) {
    VertexNormalsTangentParameters<T> p{};
    p.vertices = arguments.view<T const, 3>("vertices", vertices, {kAny, kAny, 3});
    int64_t const batch = p.vertices.size[0], vertex_count = p.vertices.size[1];
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, vertex_count);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    p.vertices_tangent = arguments.view<T const, 3>("vertices_tangent", vertices_tangent, {batch, vertex_count, 3});
    p.normals_tangent = arguments.view<T, 3>("normals_tangent", normals_tangent, {batch, vertex_count, 3});
    dispatch<T>(
        arguments, [&](int threads) { vertex_normals_tangent_cpu(p, threads); }, FOCUS_ON_CUDA(vertex_normals_tangent_cuda(p, stream)));
}

}  // namespace

void bind_vertex_normals(py::module_& module) {
    module.def("vertex_normals", [](py::object vertices, py::object faces, py::object offsets, py::object corners, py::object normals,
                                    int threads, std::uintptr_t stream) {
        Arguments arguments("vertex_normals", threads, stream);
        auto const call = arguments.is_double("vertices", vertices) ? forward<double> : forward<float>;
        call(arguments, vertices, faces, offsets, corners, normals);
    });
    module.def("vertex_normals_backward",
               [](py::object vertices, py::object faces, py::object offsets, py::object corners, py::object grad_normals,
                  py::object grad_sums, py::object grad_vertices, int threads, std::uintptr_t stream) {
                   Arguments arguments("vertex_normals_backward", threads, stream);
                   auto const call = arguments.is_double("vertices", vertices) ? backward<double> : backward<float>;
                   call(arguments, vertices, faces, offsets, corners, grad_normals, grad_sums, grad_vertices);
               });
    module.def("vertex_normals_tangent", [](py::object vertices, py::object faces, py::object offsets, py::object corners,
                                            py::object vertices_tangent, py::object normals_tangent, int threads, std::uintptr_t stream) {
        Arguments arguments("vertex_normals_tangent", threads, stream);
        auto const call = arguments.is_double("vertices", vertices) ? tangent<double> : tangent<float>;
        call(arguments, vertices, faces, offsets, corners, vertices_tangent, normals_tangent);
    });
}

}  // namespace focus::bindings
