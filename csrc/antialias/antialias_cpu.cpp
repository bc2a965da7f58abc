#include <algorithm>
#include <vector>

#include "antialias/antialias_math.h"
#include "common/parallel.h"

namespace focus {

namespace {

// Whether an edge passes between a pixel and one of its neighbours; the others keep their values.
template <typename P>
bool is_blended(P const& p, int64_t row, int x) {
    int64_t const height = p.edges.size[1], width = p.edges.size[3];
    int32_t const* const right = p.edges.data + 2 * row * width + x;
    int32_t const* const below = right + width;
    return *right >= 0 || *below >= 0 || (x > 0 && right[-1] >= 0) || (row % height > 0 && below[-2 * width] >= 0);
}

// Copies an image [B, C, H, W] but for the pixels that are blended: those are left to blend(b, x, y).
template <typename P, typename T, typename Blend>
void for_blended_pixels(P const& p, T const* from, T* to, int threads, Blend const& blend) {
    int64_t const channels = p.image.size[1], height = p.edges.size[1], width = p.edges.size[3];
    parallel_for(p.edges.size[0] * height, threads, [&](int64_t row) {
        int64_t const b = row / height, y = row % height;
        for (int64_t c = 0; c < channels; ++c) {
            int64_t const first = ((b * channels + c) * height + y) * width;
            std::copy_n(from + first, width, to + first);
        }
        for (int x = 0; x < width; ++x) {
            if (is_blended(p, row, x)) blend(b, x, static_cast<int>(y));
        }
    });
}

}  // namespace

template <typename T>
void antialias_cpu(AntialiasParameters<T> const& p, int threads) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2], rows = p.face_index.size[0] * height;
    parallel_for(rows, threads, [&](int64_t row) {
        for (int axis = 0; axis < 2; ++axis) {
            int32_t* const edges = p.edges.data + (2 * row + axis) * width;
            for (int x = 0; x < width; ++x) edges[x] = find_edge(p, row / height, x, static_cast<int>(row % height), axis);
        }
    });
    for_blended_pixels(p, p.image.data, p.values.data, threads, [&](int64_t b, int x, int y) { antialias_pixel(p, b, x, y); });
}

template <typename T>
void antialias_backward_cpu(AntialiasBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.edges.size[0], height = p.edges.size[1], width = p.edges.size[3];
    if (p.grad_image) {
        for_blended_pixels(p, p.grad_values.data, p.grad_image.data, threads,
                           [&](int64_t b, int x, int y) { antialias_image_gradient(p, b, x, y); });
    }
    if (!p.grad_screen_vertices) return;
    // An image is one task, its pairs in the order of memory.
    int64_t const vertex_count = p.screen_vertices.size[1];
    parallel_for(batch, threads, [&](int64_t b) {
        std::vector<double> sums(2 * vertex_count, 0.0);
        for (int64_t row = 0; row < 2 * height; ++row) {
            int32_t const* const edges = p.edges.data + (2 * height * b + row) * width;
            for (int x = 0; x < width; ++x) {
                if (edges[x] < 0) continue;
                double grad[6] = {};
                add_crossing_gradient(p, b, edges[x], x, static_cast<int>(row / 2), static_cast<int>(row % 2), grad);
                for (int k = 0; k < 3; ++k) {
                    int64_t const v = p.faces.data[int64_t(3) * (edges[x] / 3) + k];
                    sums[2 * v] += grad[2 * k];
                    sums[2 * v + 1] += grad[2 * k + 1];
                }
            }
        }
        T* const grad_vertices = p.grad_screen_vertices.data + b * 3 * vertex_count;
        for (int64_t v = 0; v < vertex_count; ++v) {
            grad_vertices[3 * v] = static_cast<T>(sums[2 * v]);
            grad_vertices[3 * v + 1] = static_cast<T>(sums[2 * v + 1]);
            grad_vertices[3 * v + 2] = T(0);
        }
    });
}

template void antialias_cpu(AntialiasParameters<float> const&, int);
template void antialias_cpu(AntialiasParameters<double> const&, int);
template void antialias_backward_cpu(AntialiasBackwardParameters<float> const&, int);
template void antialias_backward_cpu(AntialiasBackwardParameters<double> const&, int);

}  // namespace focus
