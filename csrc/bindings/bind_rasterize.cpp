#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "rasterize/rasterize.h"

namespace focus::bindings {

namespace {

template <typename T>
void forward(Arguments& arguments, py::object screen_vertices, py::object faces, int cull, bool perspective_correct, py::object barycentric,
             py::object depth, py::object face_index, py::object nearest, py::object pieces) {
    RasterizeParameters<T> p{};
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {kAny, kAny, 3});
    p.faces = view_faces(arguments, faces, p.screen_vertices.size[1]);
    p.depth = arguments.view<T, 3>("depth", depth, {p.screen_vertices.size[0], kAny, kAny});
    auto const& size = p.depth.size;
    arguments.check_sides("depth", size[1], size[2]);
    p.barycentric = arguments.view<T, 4>("barycentric", barycentric, {size[0], size[1], size[2], 3});
    p.face_index = arguments.view<int32_t, 3>("face_index", face_index, {size[0], size[1], size[2]});
    if (cull < 0 || cull > 2) arguments.fail("cull", "must be 0, 1 or 2");
    p.cull = static_cast<Cull>(cull);
    p.perspective_correct = perspective_correct;
    p.nearest = arguments.scratch<T, int64_t, 3>("nearest", nearest, {size[0], size[1], size[2]});
    p.pieces = arguments.scratch<T, int64_t, 1>("pieces", pieces, {kPieceListSize});
    dispatch<T>(arguments, [&](int threads) { rasterize_cpu(p, threads); }, FOCUS_ON_CUDA(rasterize_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object screen_vertices, py::object faces, py::object offsets, py::object corners,
              bool perspective_correct, py::object face_index, py::object grad_barycentric, py::object grad_depth, py::object boxes,
              py::object pieces, py::object piece_sums, py::object grad_corners, py::object grad_screen_vertices) {
    RasterizeBackwardParameters<T> p{};
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {kAny, kAny, 3});
    int64_t const batch = p.screen_vertices.size[0], vertex_count = p.screen_vertices.size[1];
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, p.screen_vertices.size[1]);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    p.perspective_correct = perspective_correct;
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {batch, kAny, kAny});
    arguments.check_range("face_index", p.face_index, -1, p.faces.size[0] - 1);
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    arguments.check_sides("face_index", height, width);
    p.grad_barycentric = arguments.optional<T const, 4>("grad_barycentric", grad_barycentric, {batch, height, width, 3});
    p.grad_depth = arguments.optional<T const, 3>("grad_depth", grad_depth, {batch, height, width});
    p.scratch = view_face_scratch<T>(arguments, boxes, pieces, piece_sums, batch, p.faces.size[0], 9);
    p.grad_corners = arguments.scratch<T, T, 4>("grad_corners", grad_corners, {batch, p.faces.size[0], 3, 3});
    p.grad_screen_vertices = arguments.view<T, 3>("grad_screen_vertices", grad_screen_vertices, {batch, vertex_count, 3});
    dispatch<T>(arguments, [&](int threads) { rasterize_backward_cpu(p, threads); }, FOCUS_ON_CUDA(rasterize_backward_cuda(p, stream)));
}

template <typename T>
void tangent(Arguments& arguments, py::object screen_vertices, py::object faces, bool perspective_correct, py::object face_index,
             py::object screen_vertices_tangent, py::object barycentric_tangent, py::object depth_tangent) {
    RasterizeTangentParameters<T> p{};
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {kAny, kAny, 3});
    int64_t const batch = p.screen_vertices.size[0], vertex_count = p.screen_vertices.size[1];
    p.faces = view_faces(arguments, faces, vertex_count);
    p.perspective_correct = perspective_correct;
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {batch, kAny, kAny});
    arguments.check_range("face_index", p.face_index, -1, p.faces.size[0] - 1);
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    arguments.check_sides("face_index", height, width);
    p.screen_vertices_tangent = arguments.view<T const, 3>("screen_vertices_tangent", screen_vertices_tangent, {batch, vertex_count, 3});
    p.barycentric_tangent = arguments.view<T, 4>("barycentric_tangent", barycentric_tangent, {batch, height, width, 3});
    p.depth_tangent = arguments.view<T, 3>("depth_tangent", depth_tangent, {batch, height, width});
    dispatch<T>(arguments, [&](int threads) { rasterize_tangent_cpu(p, threads); }, FOCUS_ON_CUDA(rasterize_tangent_cuda(p, stream)));
}

}  // namespace

void bind_rasterize(py::module_& module) {
    module.attr("PIECE_LIST_SIZE") = kPieceListSize;
    module.attr("PIECE_CAPACITY") = kPieceCapacity;
    module.def("rasterize",
               [](py::object screen_vertices, py::object faces, int cull, bool perspective_correct, py::object barycentric,
                  py::object depth, py::object face_index, py::object nearest, py::object pieces, int threads, std::uintptr_t stream) {
                   Arguments arguments("rasterize", threads, stream);
                   auto const call = arguments.is_double("screen_vertices", screen_vertices) ? forward<double> : forward<float>;
                   call(arguments, screen_vertices, faces, cull, perspective_correct, barycentric, depth, face_index, nearest, pieces);
               });
    module.def("rasterize_backward",
               [](py::object screen_vertices, py::object faces, py::object offsets, py::object corners, bool perspective_correct,
                  py::object face_index, py::object grad_barycentric, py::object grad_depth, py::object boxes, py::object pieces,
                  py::object piece_sums, py::object grad_corners, py::object grad_screen_vertices, int threads, std::uintptr_t stream) {
                   Arguments arguments("rasterize_backward", threads, stream);
                   auto const call = arguments.is_double("screen_vertices", screen_vertices) ? backward<double> : backward<float>;
                   call(arguments, screen_vertices, faces, offsets, corners, perspective_correct, face_index, grad_barycentric, grad_depth,
                        boxes, pieces, piece_sums, grad_corners, grad_screen_vertices);
               });
    module.def("rasterize_tangent", [](py::object screen_vertices, py::object faces, bool perspective_correct, py::object face_index,
                                       py::object screen_vertices_tangent, py::object barycentric_tangent, py::object depth_tangent,
                                       int threads, std::uintptr_t stream) {
        Arguments arguments("rasterize_tangent", threads, stream);
        auto const call = arguments.is_double("screen_vertices", screen_vertices) ? tangent<double> : tangent<float>;
        call(arguments, screen_vertices, faces, perspective_correct, face_index, screen_vertices_tangent, barycentric_tangent,
             depth_tangent);
    });
}

}  // namespace focus::bindings
