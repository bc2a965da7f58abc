#include "antialias/antialias.h"
#include "bindings/bind.h"
#include "bindings/dispatch.h"

namespace focus::bindings {

namespace {

// What both directions read; the sides of the image are those of `image`.
template <typename T, typename P>
void view_image(Arguments& arguments, P& p, py::object image, py::object screen_vertices) {
    p.image = arguments.view<T const, 4>("image", image, {kAny, kAny, kAny, kAny});
    arguments.check_sides("image", p.image.size[2], p.image.size[3]);
    arguments.check_sides("image", 2 * p.image.size[2], p.image.size[3]);  // the rows of its pairs
    p.screen_vertices = arguments.view<T const, 3>("screen_vertices", screen_vertices, {p.image.size[0], kAny, 3});
}

static_assert(sizeof(Seam) == 3 * sizeof(int32_t), "a row of three numbers");

// None, or [S, 3] of find_seams: those of another mesh mislead, and touch nothing that is not there.
TensorView<Seam const, 1> view_seams(Arguments& arguments, py::object object, int64_t face_count) {
    auto const rows = arguments.optional<int32_t const, 2>("seams", object, {kAny, 3});
    if (!rows || arguments.target().cuda) return {};
    auto const* const seams = reinterpret_cast<Seam const*>(rows.data);
    bool inside = true;
    for (int64_t i = 0; i < rows.size[0]; ++i) {
        inside &= seams[i].corner >= 0 && seams[i].corner < 3 * face_count && seams[i].other_face >= -1 && seams[i].other_face < face_count;
    }
    if (!inside) arguments.fail("seams", "names corners or faces that the mesh does not have");
    return {seams, {rows.size[0]}};
}

template <typename T>
void forward(Arguments& arguments, py::object image, py::object screen_vertices, py::object faces, py::object neighbors,
             py::object face_index, py::object seams, py::object values, py::object edges) {
    AntialiasParameters<T> p{};
    view_image<T>(arguments, p, image, screen_vertices);
    p.faces = view_faces(arguments, faces, p.screen_vertices.size[1]);
    int64_t const corner_count = 3 * p.faces.size[0];
    p.neighbors = arguments.view<int32_t const, 1>("neighbors", neighbors, {corner_count});
    arguments.check_range("neighbors", p.neighbors, 0, corner_count - 1);
    auto const& size = p.image.size;
    p.face_index = arguments.view<int32_t const, 3>("face_index", face_index, {size[0], size[2], size[3]});
    arguments.check_range("face_index", p.face_index, -1, p.faces.size[0] - 1);
    p.seams = view_seams(arguments, seams, p.faces.size[0]);
    p.values = arguments.view<T, 4>("values", values, {size[0], size[1], size[2], size[3]});
    p.edges = arguments.view<int32_t, 4>("edges", edges, {size[0], size[2], 2, size[3]});
    dispatch<T>(arguments, [&](int threads) { antialias_cpu(p, threads); }, FOCUS_ON_CUDA(antialias_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object image, py::object screen_vertices, py::object faces, py::object offsets, py::object corners,
              py::object edges, py::object grad_values, py::object boxes, py::object pieces, py::object piece_sums, py::object grad_corners,
              py::object grad_image, py::object grad_screen_vertices) {
    AntialiasBackwardParameters<T> p{};
    view_image<T>(arguments, p, image, screen_vertices);
    Mesh const mesh = view_mesh(arguments, faces, offsets, corners, p.screen_vertices.size[1]);
    p.faces = mesh.faces;
    p.offsets = mesh.offsets;
    p.corners = mesh.corners;
    auto const& size = p.image.size;
    p.edges = arguments.view<int32_t const, 4>("edges", edges, {size[0], size[2], 2, size[3]});
    arguments.check_range("edges", p.edges, -1, 3 * p.faces.size[0] - 1);
    p.grad_values = arguments.view<T const, 4>("grad_values", grad_values, {size[0], size[1], size[2], size[3]});
    p.grad_image = arguments.optional<T, 4>("grad_image", grad_image, {size[0], size[1], size[2], size[3]});
    p.grad_screen_vertices =
        arguments.optional<T, 3>("grad_screen_vertices", grad_screen_vertices, {size[0], p.screen_vertices.size[1], 3});
    if (p.grad_screen_vertices) {
        p.scratch = view_face_scratch<T>(arguments, boxes, pieces, piece_sums, size[0], p.faces.size[0], 6);
        p.grad_corners = arguments.scratch<T, T, 4>("grad_corners", grad_corners, {size[0], p.faces.size[0], 3, 2});
    }
    dispatch<T>(arguments, [&](int threads) { antialias_backward_cpu(p, threads); }, FOCUS_ON_CUDA(antialias_backward_cuda(p, stream)));
}

template <typename T>
void tangent(Arguments& arguments, py::object image, py::object screen_vertices, py::object faces, py::object edges,
             py::object image_tangent, py::object screen_vertices_tangent, py::object values_tangent) {
    AntialiasTangentParameters<T> p{};
    view_image<T>(arguments, p, image, screen_vertices);
    p.faces = view_faces(arguments, faces, p.screen_vertices.size[1]);
    auto const& size = p.image.size;
    p.edges = arguments.view<int32_t const, 4>("edges", edges, {size[0], size[2], 2, size[3]});
    arguments.check_range("edges", p.edges, -1, 3 * p.faces.size[0] - 1);
    p.image_tangent = arguments.optional<T const, 4>("image_tangent", image_tangent, {size[0], size[1], size[2], size[3]});
    p.screen_vertices_tangent =
        arguments.optional<T const, 3>("screen_vertices_tangent", screen_vertices_tangent, {size[0], p.screen_vertices.size[1], 3});
    p.values_tangent = arguments.view<T, 4>("values_tangent", values_tangent, {size[0], size[1], size[2], size[3]});
    dispatch<T>(arguments, [&](int threads) { antialias_tangent_cpu(p, threads); }, FOCUS_ON_CUDA(antialias_tangent_cuda(p, stream)));
}

}  // namespace

void bind_antialias(py::module_& module) {
    module.def("antialias", [](py::object image, py::object screen_vertices, py::object faces, py::object neighbors, py::object face_index,
                               py::object seams, py::object values, py::object edges, int threads, std::uintptr_t stream) {
        Arguments arguments("antialias", threads, stream);
        auto const call = arguments.is_double("image", image) ? forward<double> : forward<float>;
        call(arguments, image, screen_vertices, faces, neighbors, face_index, seams, values, edges);
    });
    module.def("find_seams", [](py::object faces, py::object neighbors, py::object seams) {
        Arguments arguments("find_seams", 1, 0);
        auto const triangles = arguments.view<int32_t const, 2>("faces", faces, {kAny, 3});
        arguments.check_face_count(triangles.size[0]);
        int64_t const corner_count = 3 * triangles.size[0];
        auto const others = arguments.view<int32_t const, 1>("neighbors", neighbors, {corner_count});
        arguments.check_range("neighbors", others, 0, corner_count - 1);
        auto const rows = arguments.view<int32_t, 2>("seams", seams, {corner_count, 3});
        if (arguments.target().cuda) arguments.fail("faces", "expected on the CPU");
        py::gil_scoped_release release;
        return find_seams(triangles, others, reinterpret_cast<Seam*>(rows.data));
    });
    module.def("antialias_backward",
               [](py::object image, py::object screen_vertices, py::object faces, py::object offsets, py::object corners, py::object edges,
                  py::object grad_values, py::object boxes, py::object pieces, py::object piece_sums, py::object grad_corners,
                  py::object grad_image, py::object grad_screen_vertices, int threads, std::uintptr_t stream) {
                   Arguments arguments("antialias_backward", threads, stream);
                   auto const call = arguments.is_double("image", image) ? backward<double> : backward<float>;
                   call(arguments, image, screen_vertices, faces, offsets, corners, edges, grad_values, boxes, pieces, piece_sums,
                        grad_corners, grad_image, grad_screen_vertices);
               });
    module.def("antialias_tangent",
               [](py::object image, py::object screen_vertices, py::object faces, py::object edges, py::object image_tangent,
                  py::object screen_vertices_tangent, py::object values_tangent, int threads, std::uintptr_t stream) {
                   Arguments arguments("antialias_tangent", threads, stream);
                   auto const call = arguments.is_double("image", image) ? tangent<double> : tangent<float>;
                   call(arguments, image, screen_vertices, faces, edges, image_tangent, screen_vertices_tangent, values_tangent);
               });
}

}  // namespace focus::bindings
