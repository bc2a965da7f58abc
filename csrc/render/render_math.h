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
    double x[3], y[3], b[3];
    for (int k = 0; k < 3; ++k) {
        T const* const v = screen_vertices + int64_t(3) * face[k];
        x[k] = v[0];
        y[k] = v[1];
    }
    for (int k = 0; k < 3; ++k) {
        int const i = (k + 1) % 3, j = (k + 2) % 3;
        b[k] = make_edge(x[i], y[i], x[j], y[j])(double(px), double(py));
        if (perspective_correct) b[k] /= static_cast<double>(screen_vertices[int64_t(3) * face[k] + 2]);
    }
    double const scale = 1.0 / (b[0] + b[1] + b[2]);
    for (int k = 0; k < 3; ++k) barycentric[k] = b[k] * scale;
}

// The gradient of one pixel with respect to the screen vertices of its face, added to `grad[3 * corner + axis]`. The channels of a pixel
// lie `area` apart.
template <typename T>
FOCUS_HD void add_render_gradient(T const* screen_vertices, T const* attributes, int64_t channels, int32_t const* face, int px, int py,
                                  bool perspective_correct, T const* grad_image, int64_t area, double* grad) {
    T const* const corners[3] = {attributes + face[0] * channels, attributes + face[1] * channels, attributes + face[2] * channels};
    double sums[3] = {};
    for (int64_t c = 0; c < channels; ++c) {
        double const grad_value = grad_image[c * area];
        for (int k = 0; k < 3; ++k) sums[k] += grad_value * corners[k][c];
    }
    T const grad_barycentric[3] = {static_cast<T>(sums[0]), static_cast<T>(sums[1]), static_cast<T>(sums[2])};
    add_rasterize_gradient(screen_vertices, face, px, py, perspective_correct, grad_barycentric, static_cast<T const*>(nullptr), grad);
}

}  // namespace focus
