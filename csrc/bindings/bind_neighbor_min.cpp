#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "bindings/images.h"
#include "neighbor_min/neighbor_min.h"

namespace focus::bindings {

namespace {

void check_options(Arguments const& arguments, int window, int power) {
    if (window < 1 || window > kLargestWindow || window % 2 == 0) {
        arguments.fail("window", "expected an odd number in [1, " + std::to_string(kLargestWindow) + "], got " + std::to_string(window));
    }
    if (power != 1 && power != 2) arguments.fail("power", "expected 1 or 2, got " + std::to_string(power));
}

template <typename T>
void forward(Arguments& arguments, py::object target, py::object reconstruction, py::object mask, int window, int power, bool mean,
             py::object argmin, py::object distance, py::object loss, py::object partial_sums) {
    check_options(arguments, window, power);
    NeighborMinParameters<T> p{};
    auto const shape = view_images<T>(arguments, p, target, reconstruction, mask, true);
    int64_t const batch = shape[0], height = shape[2], width = shape[3];
    p.window = window;
    p.power = power;
    p.mean = mean;
    p.argmin = arguments.view<uint8_t, 3>("argmin", argmin, {batch, height, width});
    p.distance = arguments.optional<T, 3>("distance", distance, {batch, height, width});
    p.loss = arguments.optional<T, 1>("loss", loss, {1});
    if (p.loss) {
        int64_t const tile_rows = (height + kNeighborTileHeight - 1) / kNeighborTileHeight;
        int64_t const tile_columns = (width + kNeighborTileWidth - 1) / kNeighborTileWidth;
        p.partial_sums = arguments.partial_sums<T, 3>(partial_sums, {batch, tile_rows, tile_columns});
    }
    dispatch<T>(arguments, [&](int threads) { neighbor_min_cpu(p, threads); }, FOCUS_ON_CUDA(neighbor_min_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object target, py::object reconstruction, py::object mask, int window, int power, bool mean,
              py::object argmin, py::object grad_distance, py::object grad_loss, py::object grad_target, py::object grad_reconstruction,
              py::object grad_mask) {
    check_options(arguments, window, power);
    NeighborMinBackwardParameters<T> p{};
    auto const shape = view_images<T>(arguments, p, target, reconstruction, mask, true);
    p.window = window;
    p.power = power;
    p.mean = mean;
    p.argmin = arguments.view<uint8_t const, 3>("argmin", argmin, {shape[0], shape[2], shape[3]});
    p.grad_distance = arguments.optional<T const, 3>("grad_distance", grad_distance, {shape[0], shape[2], shape[3]});
    p.grad_loss = arguments.optional<T const, 1>("grad_loss", grad_loss, {1});
    if (bool(p.grad_distance) == bool(p.grad_loss)) arguments.fail("grad_distance", "or grad_loss expected, exactly one of them");
    view_image_gradients<T>(arguments, p, shape, grad_target, grad_reconstruction, grad_mask);
    dispatch<T>(
        arguments, [&](int threads) { neighbor_min_backward_cpu(p, threads); }, FOCUS_ON_CUDA(neighbor_min_backward_cuda(p, stream)));
}

}  // namespace

void bind_neighbor_min(py::module_& module) {
    module.attr("NEIGHBOR_TILE") = py::make_tuple(kNeighborTileHeight, kNeighborTileWidth);
    module.def("neighbor_min",
               [](py::object target, py::object reconstruction, py::object mask, int window, int power, bool mean, py::object argmin,
                  py::object distance, py::object loss, py::object partial_sums, int threads, std::uintptr_t stream) {
                   Arguments arguments("neighbor_min", threads, stream);
                   auto const call = arguments.is_double("target", target) ? forward<double> : forward<float>;
                   call(arguments, target, reconstruction, mask, window, power, mean, argmin, distance, loss, partial_sums);
               });
    module.def("neighbor_min_backward", [](py::object target, py::object reconstruction, py::object mask, int window, int power, bool mean,
                                           py::object argmin, py::object grad_distance, py::object grad_loss, py::object grad_target,
                                           py::object grad_reconstruction, py::object grad_mask, int threads, std::uintptr_t stream) {
        Arguments arguments("neighbor_min_backward", threads, stream);
        auto const call = arguments.is_double("target", target) ? backward<double> : backward<float>;
        call(arguments, target, reconstruction, mask, window, power, mean, argmin, grad_distance, grad_loss, grad_target,
             grad_reconstruction, grad_mask);
    });
}

}  // namespace focus::bindings
