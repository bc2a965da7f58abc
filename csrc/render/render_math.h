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

// The coordinates of a pixel that `face` is known to cover.
template <typename T>
FOCUS_HD void find_barycentric(T const* screen_vertices, int32_t const* face, int px, int py, bool perspective_correct,
                               double* barycentric) {
    T const *const v0 = screen_vertices + int64_t(3) * face[0], *const v1 = screen_vertices + int64_t(3) * face[1],
                   *const v2 = screen_vertices + int64_t(3) * face[2];
    double b0 = make_edge(v1[0], v1[1], v2[0], v2[1])(px, py), b1 = make_edge(v2[0], v2[1], v0[0], v0[1])(px, py),
           b2 = make_edge(v0[0], v0[1], v1[0], v1[1])(px, py);
    if (perspective_correct) {
        b0 /= v0[2];
        b1 /= v1[2];
        b2 /= v2[2];
    }
    double const scale = 1.0 / (b0 + b1 + b2);
    barycentric[0] = b0 * scale;
    barycentric[1] = b1 * scale;
    barycentric[2] = b2 * scale;
}

// The gradient of one pixel with respect to the screen vertices of its face, added to `grad[3 * corner + axis]`. The channels of a pixel
// lie `area` apart.
template <typename T>
FOCUS_HD void add_render_gradient(T const* screen_vertices, T const* attributes, int64_t channels, int32_t const* face, int px, int py,
                                  bool perspective_correct, T const* grad_image, int64_t area, double* grad) {
    T grad_barycentric[3];
    for (int k = 0; k < 3; ++k) grad_barycentric[k] = barycentric_gradient(attributes, channels, face[k], grad_image, area);
    add_rasterize_gradient(screen_vertices, face, px, py, perspective_correct, grad_barycentric, static_cast<T const*>(nullptr), grad);
}

}  // namespace focus
