#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "render/render.h"

namespace focus::bindings {

namespace {

template <typename T>
TensorView<T const, 3> view_attributes(Arguments& arguments, py::object attributes, int64_t batch, int64_t vertex_count) {
    auto const view = arguments.view<T const, 3>("attributes", attributes, {kAny, vertex_count, kAny});
    if (view.size[0] != 1 && view.size[0] != batch) {
        arguments.fail("attributes", "expected a batch of 1 or " + std::to_string(batch) + ", got " + std::to_string(view.size[0]));
    }
    return view;
}

template <typename T>
void forward(Arguments& arguments, py::object screen_vertices, py::object attributes, py::object faces, int cull, bool perspective_correct,
             py::object image, py::object mask, py::object face_index, py::object nearest, py::object pieces) {
    RenderParameters<T> p{};
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {kAny, kAny, 3});
    int64_t const batch = p.screen_vertices.size[0], vertex_count = p.screen_vertices.size[1];
    p.attributes = view_attributes<T>(arguments, attributes, batch, vertex_count);
    p.faces = view_faces(arguments, faces, vertex_count);
    p.image = arguments.view<T, 4>("image", image, {batch, p.attributes.size[2], kAny, kAny});
    int64_t const height = p.image.size[2], width = p.image.size[3];
    arguments.check_sides("image", height, width);
    p.mask = arguments.view<T, 4>("mask", mask, {batch, 1, height, width});
    p.face_index = arguments.view<int32_t, 3>("face_index", face_index, {batch, height, width});
    if (cull < 0 || cull > 2) arguments.fail("cull", "must be 0, 1 or 2");
    p.cull = static_cast<Cull>(cull);
    p.perspective_correct = perspective_correct;
    p.nearest = arguments.scratch<T, int64_t, 3>("nearest", nearest, {batch, height, width});
    p.pieces = arguments.scratch<T, int64_t, 1>("pieces", pieces, {kPieceListSize});
    dispatch<T>(arguments, [&](int threads) { render_cpu(p, threads); }, FOCUS_ON_CUDA(render_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object screen_vertices, py::object attributes, py::object faces, py::object offsets,
              py::object corners, bool perspective_correct, py::object face_index, py::object grad_image, py::object boxes,
              py::object pieces, py::object piece_sums, py::object grad_corners, py::object grad_screen_vertices,
              py::object grad_attributes) {
    RenderBackwardParameters<T> p{};
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {kAny, kAny, 3});
    int64_t const batch = p.screen_vertices.size[0], vertex_count = p.screen_vertices.size[1];
    p.attributes = view_attributes<T>(arguments, attributes, batch, vertex_count);
    int64_t const channels = p.attributes.size[2];
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, vertex_count);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    int64_t const face_count = p.faces.size[0];
    p.perspective_correct = perspective_correct;
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {batch, kAny, kAny});
    arguments.check_range("face_index", p.face_index, -1, face_count - 1);
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    arguments.check_sides("face_index", height, width);
    p.grad_image = arguments.view<T const, 4>("grad_image", grad_image, {batch, channels, height, width});
    p.scratch = view_face_scratch<T>(arguments, boxes, pieces, piece_sums, batch, face_count, kRenderSums);
    p.grad_corners = arguments.scratch<T, T, 4>("grad_corners", grad_corners, {batch, face_count, 3, 3 + channels});
    p.grad_screen_vertices = arguments.optional<T, 3>("grad_screen_vertices", grad_screen_vertices, {batch, vertex_count, 3});
    p.grad_attributes = arguments.optional<T, 3>("grad_attributes", grad_attributes, {p.attributes.size[0], vertex_count, channels});
    dispatch<T>(arguments, [&](int threads) { render_backward_cpu(p, threads); }, FOCUS_ON_CUDA(render_backward_cuda(p, stream)));
}

template <typename T>
void tangent(Arguments& arguments, py::object screen_vertices, py::object attributes, py::object faces, bool perspective_correct,
             py::object face_index, py::object screen_vertices_tangent, py::object attributes_tangent, py::object image_tangent) {
    RenderTangentParameters<T> p{};
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {kAny, kAny, 3});
    int64_t const batch = p.screen_vertices.size[0], vertex_count = p.screen_vertices.size[1];
    p.attributes = view_attributes<T>(arguments, attributes, batch, vertex_count);
    int64_t const channels = p.attributes.size[2];
    p.faces = view_faces(arguments, faces, vertex_count);
    p.perspective_correct = perspective_correct;
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {batch, kAny, kAny});
    arguments.check_range("face_index", p.face_index, -1, p.faces.size[0] - 1);
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    arguments.check_sides("face_index", height, width);
    p.screen_vertices_tangent =
        arguments.optional<T const, 3>("screen_vertices_tangent", screen_vertices_tangent, {batch, vertex_count, 3});
    p.attributes_tangent =
        arguments.optional<T const, 3>("attributes_tangent", attributes_tangent, {p.attributes.size[0], vertex_count, channels});
    p.image_tangent = arguments.view<T, 4>("image_tangent", image_tangent, {batch, channels, height, width});
    dispatch<T>(arguments, [&](int threads) { render_tangent_cpu(p, threads); }, FOCUS_ON_CUDA(render_tangent_cuda(p, stream)));
}

}  // namespace

void bind_render(py::module_& module) {
    module.attr("RENDER_SUMS") = kRenderSums;
    module.def("render",
               [](py::object screen_vertices, py::object attributes, py::object faces, int cull, bool perspective_correct, py::object image,
                  py::object mask, py::object face_index, py::object nearest, py::object pieces, int threads, std::uintptr_t stream) {
                   Arguments arguments("render", threads, stream);
                   auto const call = arguments.is_double("screen_vertices", screen_vertices) ? forward<double> : forward<float>;
                   call(arguments, screen_vertices, attributes, faces, cull, perspective_correct, image, mask, face_index, nearest, pieces);
               });
    module.def("render_backward", [](py::object screen_vertices, py::object attributes, py::object faces, py::object offsets,
                                     py::object corners, bool perspective_correct, py::object face_index, py::object grad_image,
                                     py::object boxes, py::object pieces, py::object piece_sums, py::object grad_corners,
                                     py::object grad_screen_vertices, py::object grad_attributes, int threads, std::uintptr_t stream) {
        Arguments arguments("render_backward", threads, stream);
        auto const call = arguments.is_double("screen_vertices", screen_vertices) ? backward<double> : backward<float>;
        call(arguments, screen_vertices, attributes, faces, offsets, corners, perspective_correct, face_index, grad_image, boxes, pieces,
             piece_sums, grad_corners, grad_screen_vertices, grad_attributes);
    });
    module.def("render_tangent", [](py::object screen_vertices, py::object attributes, py::object faces, bool perspective_correct,
                                    py::object face_index, py::object screen_vertices_tangent, py::object attributes_tangent,
                                    py::object image_tangent, int threads, std::uintptr_t stream) {
        Arguments arguments("render_tangent", threads, stream);
        auto const call = arguments.is_double("screen_vertices", screen_vertices) ? tangent<double> : tangent<float>;
        call(arguments, screen_vertices, attributes, faces, perspective_correct, face_index, screen_vertices_tangent, attributes_tangent,
             image_tangent);
    });
}

}  // namespace focus::bindings
