// One pixel of an image and its gradient, out of the arithmetic of rasterize and interpolate.
#pragma once

#include "interpolate/interpolate_math.h"
#include "rasterize/rasterize_math.h"
#include "render/render.h"

namespace focus {

// The attributes of an image.
template <typename Parameters>
FOCUS_HD auto attributes_of(Parameters const& p, int64_t b) {
    return p.attributes.data + (p.attributes.size[0] == 1 ? 0 : b) * p.attributes.stride();
}

// d L / d barycentric of one pixel: attribute(k, c) is that of corner k, and grad_image(c) the gradient of channel c.
template <typename Attribute, typename GradImage>
FOCUS_HD void find_barycentric_gradient(int64_t channels, Attribute const& attribute, GradImage const& grad_image,
                                        double* grad_barycentric) {
    for (int k = 0; k < 3; ++k) grad_barycentric[k] = 0.0;
    for (int64_t c = 0; c < channels; ++c) {
        double const grad_value = grad_image(c);
        for (int k = 0; k < 3; ++k) grad_barycentric[k] += grad_value * attribute(k, c);
    }
}

}  // namespace focus
