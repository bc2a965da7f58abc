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

// How one pixel of all channels moves.
template <typename T>
FOCUS_HD void render_pixel_tangent(RenderTangentParameters<T> const& p, int64_t b, int64_t y, int64_t x) {
    int64_t const channels = p.attributes.size[2], width = p.face_index.size[2], area = p.face_index.stride(), pixel = y * width + x;
    T* const tangent = p.image_tangent.data + b * channels * area + pixel;
    int32_t const f = p.face_index.data[b * area + pixel];
    if (f < 0 || f >= p.faces.size[0]) {
        for (int64_t c = 0; c < channels; ++c) tangent[c * area] = T(0);
        return;
    }
    int32_t const* const face = p.faces.data + int64_t(3) * f;
    Corners const at(p.screen_vertices.data + b * p.screen_vertices.stride(), face);
    Location const location = at.locate(int(x), int(y), p.perspective_correct);
    double barycentric_tangent[3] = {0.0, 0.0, 0.0};
    if (p.screen_vertices_tangent) {
        Corners const moved(p.screen_vertices_tangent.data + b * p.screen_vertices.stride(), face);
        location.find_tangent(at.x, at.y, at.z, p.perspective_correct, moved.x, moved.y, moved.z, barycentric_tangent,
                              static_cast<double*>(nullptr));
    }
    int64_t const image = (p.attributes.size[0] == 1 ? 0 : b) * p.attributes.stride();
    for (int64_t c = 0; c < channels; ++c) {
        double sum = 0.0;
        for (int k = 0; k < 3; ++k) {
            int64_t const entry = image + face[k] * channels + c;
            sum += barycentric_tangent[k] * p.attributes.data[entry];
            if (p.attributes_tangent) sum += location.barycentric[k] * p.attributes_tangent.data[entry];
        }
        tangent[c * area] = static_cast<T>(sum);
    }
}

}  // namespace focus
