#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "bindings/images.h"
#include "common/color_difference.h"
#include "masked_photometric/masked_photometric.h"

namespace focus::bindings {

namespace {

template <typename T>
void forward(Arguments& arguments, py::object target, py::object reconstruction, py::object mask, py::object loss, py::object sums,
             py::object partial_sums) {
    MaskedPhotometricParameters<T> p{};
    auto const shape = view_images<T>(arguments, p, target, reconstruction, mask);
    p.loss = arguments.view<T, 1>("loss", loss, {1});
    p.sums = arguments.view<T, 1>("sums", sums, {2});
    p.partial_sums = arguments.partial_sums<T, 3>(partial_sums, {2, shape[0], PixelChunks(shape[0], p.mask.stride()).per_image});
    dispatch<T>(arguments, [&](int threads) { masked_photometric_cpu(p, threads); }, FOCUS_ON_CUDA(masked_photometric_cuda(p, stream)));
}

template <typename T>
void backward(Arguments& arguments, py::object target, py::object reconstruction, py::object mask, py::object sums, py::object grad_loss,
              py::object grad_target, py::object grad_reconstruction, py::object grad_mask) {
    MaskedPhotometricBackwardParameters<T> p{};
    auto const shape = view_images<T>(arguments, p, target, reconstruction, mask);
    p.sums = arguments.view<T const, 1>("sums", sums, {2});
    p.grad_loss = arguments.view<T const, 1>("grad_loss", grad_loss, {1});
    view_image_gradients<T>(arguments, p, shape, grad_target, grad_reconstruction, grad_mask);
    dispatch<T>(
        arguments, [&](int threads) { masked_photometric_backward_cpu(p, threads); },
        FOCUS_ON_CUDA(masked_photometric_backward_cuda(p, stream)));
}

}  // namespace

void bind_masked_photometric(py::module_& module) {
    module.attr("PIXEL_CHUNK") = kPixelChunk;
    module.def("masked_photometric", [](py::object target, py::object reconstruction, py::object mask, py::object loss, py::object sums,
                                        py::object partial_sums, int threads, std::uintptr_t stream) {
        Arguments arguments("masked_photometric", threads, stream);
        auto const call = arguments.is_double("target", target) ? forward<double> : forward<float>;
        call(arguments, target, reconstruction, mask, loss, sums, partial_sums);
    });
    module.def("masked_photometric_backward",
               [](py::object target, py::object reconstruction, py::object mask, py::object sums, py::object grad_loss,
                  py::object grad_target, py::object grad_reconstruction, py::object grad_mask, int threads, std::uintptr_t stream) {
                   Arguments arguments("masked_photometric_backward", threads, stream);
                   auto const call = arguments.is_double("target", target) ? backward<double> : backward<float>;
                   call(arguments, target, reconstruction, mask, sums, grad_loss, grad_target, grad_reconstruction, grad_mask);
               });
}

}  // namespace focus::bindings
