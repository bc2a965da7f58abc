// The arguments that the losses on images share.
#pragma once

#include "bindings/arguments.h"

namespace focus::bindings {

// Fills target, reconstruction and mask of a parameter struct, and returns the shape of the images. `mask` may be None where it is
// optional.
template <typename T, typename Parameters>
std::array<int64_t, 4> view_images(Arguments& arguments, Parameters& p, py::handle target, py::handle reconstruction, py::handle mask,
                                   bool mask_is_optional = false) {
    p.target = arguments.view<T const, 4>("target", target, {kAny, kAny, kAny, kAny});
    std::array<int64_t, 4> const shape{p.target.size[0], p.target.size[1], p.target.size[2], p.target.size[3]};
    p.reconstruction = arguments.view<T const, 4>("reconstruction", reconstruction, shape);
    std::array<int64_t, 4> const mask_shape{shape[0], 1, shape[2], shape[3]};
    p.mask =
        mask_is_optional ? arguments.optional<T const, 4>("mask", mask, mask_shape) : arguments.view<T const, 4>("mask", mask, mask_shape);
    return shape;
}

// The same for their gradients, each of which may be None.
template <typename T, typename Parameters>
void view_image_gradients(Arguments& arguments, Parameters& p, std::array<int64_t, 4> const& shape, py::handle grad_target,
                          py::handle grad_reconstruction, py::handle grad_mask) {
    p.grad_target = arguments.optional<T, 4>("grad_target", grad_target, shape);
    p.grad_reconstruction = arguments.optional<T, 4>("grad_reconstruction", grad_reconstruction, shape);
    p.grad_mask = arguments.optional<T, 4>("grad_mask", grad_mask, {shape[0], 1, shape[2], shape[3]});
}

}  // namespace focus::bindings
