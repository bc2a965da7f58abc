#include <cmath>

#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "bindings/images.h"
#include "common/color_difference.h"
#include "outlier_robust/outlier_robust.h"

namespace focus::bindings {

namespace {

// Not finite or not positive would make every pixel an outlier, or the loss NaN.
double positive(Arguments const& arguments, char const* name, double value) {
    if (!(value > 0) || !std::isfinite(value)) arguments.fail(name, "expected a finite number > 0, got " + std::to_string(value));
    return value;
}

template <typename T>
void forward(Arguments& arguments, py::object target, py::object reconstruction, py::object mask, double sigma, double cutoff,
             py::object loss, py::object inlier, py::object partial_sums) {
    OutlierRobustParameters<T> p{};
    auto const shape = view_images<T>(arguments, p, target, reconstruction, mask);
    p.sigma = positive(arguments, "sigma", sigma);
    p.cutoff = positive(arguments, "cutoff", cutoff);
    p.loss = arguments.view<T, 1>("loss", loss, {1});
    p.inlier = arguments.view<T, 4>("inlier", inlier, {shape[0], 1, shape[2], shape[3]});
    p.partial_sums = arguments.partial_sums<T, 2>(partial_sums, {shape[0], PixelChunks(shape[0], p.mask.stride()).per_image});
    dispatch<T>(arguments, [&](int threads) { outlier_robust_cpu(p, threads); }, FOCUS_ON_CUDA(outlier_robust_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object target, py::object reconstruction, py::object mask, double sigma, double cutoff,
              py::object grad_loss, py::object grad_target, py::object grad_reconstruction, py::object grad_mask) {
    OutlierRobustBackwardParameters<T> p{};
    auto const shape = view_images<T>(arguments, p, target, reconstruction, mask);
    p.sigma = positive(arguments, "sigma", sigma);
    p.cutoff = positive(arguments, "cutoff", cutoff);
    p.grad_loss = arguments.view<T const, 1>("grad_loss", grad_loss, {1});
    view_image_gradients<T>(arguments, p, shape, grad_target, grad_reconstruction, grad_mask);
    dispatch<T>(
        arguments, [&](int threads) { outlier_robust_backward_cpu(p, threads); }, FOCUS_ON_CUDA(outlier_robust_backward_cuda(p, stream)));
}

}  // namespace

void bind_outlier_robust(py::module_& module) {
    module.def("outlier_robust", [](py::object target, py::object reconstruction, py::object mask, double sigma, double cutoff,
                                    py::object loss, py::object inlier, py::object partial_sums, int threads, std::uintptr_t stream) {
        Arguments arguments("outlier_robust", threads, stream);
        auto const call = arguments.is_double("target", target) ? forward<double> : forward<float>;
        call(arguments, target, reconstruction, mask, sigma, cutoff, loss, inlier, partial_sums);
    });
    module.def("outlier_robust_backward",
               [](py::object target, py::object reconstruction, py::object mask, double sigma, double cutoff, py::object grad_loss,
                  py::object grad_target, py::object grad_reconstruction, py::object grad_mask, int threads, std::uintptr_t stream) {
                   Arguments arguments("outlier_robust_backward", threads, stream);
                   auto const call = arguments.is_double("target", target) ? backward<double> : backward<float>;
                   call(arguments, target, reconstruction, mask, sigma, cutoff, grad_loss, grad_target, grad_reconstruction, grad_mask);
               });
}

}  // namespace focus::bindings
