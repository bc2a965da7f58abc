#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "common/vertex_parts.h"
#include "interpolate/interpolate_math.h"

namespace focus {

template <typename T>
void interpolate_cpu(InterpolateParameters<T> const& p, int threads) {
    int64_t const batch = p.values.size[0], channels = p.values.size[1], height = p.values.size[2], width = p.values.size[3];
    int64_t const area = height * width;
    parallel_for(area ? batch * height : 0, threads, [&](int64_t row) {
        int64_t const b = row / height, first = row % height * width;
        T const* const attributes = p.attributes.data + (p.attributes.size[0] == 1 ? 0 : b) * p.attributes.stride();
        for (int64_t pixel = first; pixel < first + width; ++pixel) {
            int32_t const f = p.face_index.data[b * area + pixel];
            for (int64_t c = 0; c < channels; ++c) {
                p.values.data[(b * channels + c) * area + pixel] =
                    f < 0 ? T(0)
                          : interpolate_channel(attributes, channels, p.faces.data + int64_t(3) * f,
                                                p.barycentric.data + 3 * (b * area + pixel), c);
            }
        }
    });
}

template <typename T>
void interpolate_backward_cpu(InterpolateBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.grad_values.size[0], channels = p.grad_values.size[1];
    int64_t const area = p.grad_values.size[2] * p.grad_values.size[3];
    bool const shared = p.attributes.size[0] == 1;
    int64_t const per_item = p.attributes.stride();
    // Images that share attributes are added in batch order afterwards.
    std::vector<double> sums(p.grad_attributes ? batch * per_item : 0, 0.0);
    VertexParts const parts = parts_of_shown_vertices(p, p.attributes.size[1], threads);
    parallel_for(parts.count(), threads, [&](int64_t task) {
        int64_t const b = parts.image(task);
        VertexPart const part = parts.part(task);
        T const* const attributes = p.attributes.data + (shared ? 0 : b) * per_item;
        for (int64_t i = 0; i < area; ++i) {
            int64_t const pixel = b * area + i;
            int32_t const f = p.face_index.data[pixel];
            if (f < 0) {
                if (p.grad_barycentric && part.first) std::fill_n(p.grad_barycentric.data + 3 * pixel, 3, T(0));
                continue;
            }
            int32_t const* const face = p.faces.data + int64_t(3) * f;
            if (!part.has_corner_of(face)) continue;
            T const* const grad_values = p.grad_values.data + b * channels * area + i;
            if (p.grad_barycentric && part.has(face[0])) {
                for (int k = 0; k < 3; ++k) {
                    p.grad_barycentric.data[3 * pixel + k] = barycentric_gradient(attributes, channels, face[k], grad_values, area);
                }
            }
            if (!p.grad_attributes) continue;
            for (int64_t c = 0; c < channels; ++c) {
                double grad[3] = {};
                add_attribute_gradient(grad_values[c * area], p.barycentric.data + 3 * pixel, grad);
                for (int k = 0; k < 3; ++k) {
                    if (part.has(face[k])) sums[b * per_item + face[k] * channels + c] += grad[k];
                }
            }
        }
    });
    if (!p.grad_attributes) return;
    if (!shared) {
        std::copy(sums.begin(), sums.end(), p.grad_attributes.data);
        return;
    }
    for (int64_t i = 0; i < per_item; ++i) {
        double total = 0.0;
        for (int64_t b = 0; b < batch; ++b) total += sums[b * per_item + i];
        p.grad_attributes.data[i] = static_cast<T>(total);
    }
}

template void interpolate_cpu(InterpolateParameters<float> const&, int);
template void interpolate_cpu(InterpolateParameters<double> const&, int);
template void interpolate_backward_cpu(InterpolateBackwardParameters<float> const&, int);
template void interpolate_backward_cpu(InterpolateBackwardParameters<double> const&, int);

}  // namespace focus
