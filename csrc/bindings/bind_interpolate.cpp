#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "interpolate/interpolate.h"

namespace focus::bindings {

namespace {

template <typename T>
TensorView<T const, 3> view_attributes(Arguments& arguments, py::object attributes, int64_t batch) {
    auto const view = arguments.view<T const, 3>("attributes", attributes, {kAny, kAny, kAny});
    if (view.size[0] != 1 && view.size[0] != batch) {
        arguments.fail("attributes", "expected a batch of 1 or " + std::to_string(batch) + ", got " + std::to_string(view.size[0]));
    }
    return view;
}

template <typename T>
void forward(Arguments& arguments, py::object attributes, py::object faces, py::object face_index, py::object barycentric,
             py::object values) {
    InterpolateParameters<T> p{};
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {kAny, kAny, kAny});
    auto const& size = p.face_index.size;
    arguments.check_sides("face_index", size[1], size[2]);
    p.attributes = view_attributes<T>(arguments, attributes, size[0]);
    p.faces = view_faces(arguments, faces, p.attributes.size[1]);
    arguments.check_range("face_index", p.face_index, -1, p.faces.size[0] - 1);
    p.barycentric = arguments.view<T const, 4>("barycentric", barycentric, {size[0], size[1], size[2], 3});
    p.values = arguments.view<T, 4>("values", values, {size[0], p.attributes.size[2], size[1], size[2]});
    dispatch<T>(arguments, [&](int threads) { interpolate_cpu(p, threads); }, FOCUS_ON_CUDA(interpolate_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object attributes, py::object faces, py::object offsets, py::object corners, py::object face_index,
              py::object barycentric, py::object grad_values, py::object boxes, py::object pieces, py::object piece_sums,
              py::object grad_corners, py::object grad_attributes, py::object grad_barycentric) {
    InterpolateBackwardParameters<T> p{};
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {kAny, kAny, kAny});
    auto const& size = p.face_index.size;
    arguments.check_sides("face_index", size[1], size[2]);
    p.attributes = view_attributes<T>(arguments, attributes, size[0]);
    int64_t const channels = p.attributes.size[2];
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, p.attributes.size[1]);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    arguments.check_range("face_index", p.face_index, -1, p.faces.size[0] - 1);
    p.barycentric = arguments.view<T const, 4>("barycentric", barycentric, {size[0], size[1], size[2], 3});
    p.grad_values = arguments.view<T const, 4>("grad_values", grad_values, {size[0], channels, size[1], size[2]});
    p.grad_attributes =
        arguments.optional<T, 3>("grad_attributes", grad_attributes, {p.attributes.size[0], p.attributes.size[1], channels});
    if (p.grad_attributes) {
        p.scratch = view_face_scratch<T>(arguments, boxes, pieces, piece_sums, size[0], p.faces.size[0], 3);
        p.grad_corners = arguments.scratch<T, T, 4>("grad_corners", grad_corners, {size[0], p.faces.size[0], 3, channels});
    }
    p.grad_barycentric = arguments.optional<T, 4>("grad_barycentric", grad_barycentric, {size[0], size[1], size[2], 3});
    dispatch<T>(arguments, [&](int threads) { interpolate_backward_cpu(p, threads); }, FOCUS_ON_CUDA(interpolate_backward_cuda(p, stream)));
}

}  // namespace

void bind_interpolate(py::module_& module) {
    module.def("interpolate", [](py::object attributes, py::object faces, py::object face_index, py::object barycentric, py::object values,
                                 int threads, std::uintptr_t stream) {
        Arguments arguments("interpolate", threads, stream);
        auto const call = arguments.is_double("attributes", attributes) ? forward<double> : forward<float>;
        call(arguments, attributes, faces, face_index, barycentric, values);
    });
    module.def("interpolate_backward",
               [](py::object attributes, py::object faces, py::object offsets, py::object corners, py::object face_index,
                  py::object barycentric, py::object grad_values, py::object boxes, py::object pieces, py::object piece_sums,
                  py::object grad_corners, py::object grad_attributes, py::object grad_barycentric, int threads, std::uintptr_t stream) {
                   Arguments arguments("interpolate_backward", threads, stream);
                   auto const call = arguments.is_double("attributes", attributes) ? backward<double> : backward<float>;
                   call(arguments, attributes, faces, offsets, corners, face_index, barycentric, grad_values, boxes, pieces, piece_sums,
                        grad_corners, grad_attributes, grad_barycentric);
               });
}

}  // namespace focus::bindings
