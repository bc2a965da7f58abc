#include <vector>

#include "antialias/antialias_math.h"
#include "common/parallel.h"

namespace focus {

template <typename T>
void antialias_cpu(AntialiasParameters<T> const& p, int threads) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    parallel_for(p.face_index.size[0] * height, threads, [&](int64_t row) {
        for (int x = 0; x < width; ++x) antialias_pixel(p, row / height, x, static_cast<int>(row % height));
    });
}

template <typename T>
void antialias_backward_cpu(AntialiasBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.face_index.size[0], height = p.face_index.size[1], width = p.face_index.size[2];
    if (p.grad_image) {
        parallel_for(batch * height, threads, [&](int64_t row) {
            for (int x = 0; x < width; ++x) antialias_image_gradient(p, row / height, x, static_cast<int>(row % height));
        });
    }
    if (!p.grad_screen_vertices) return;
    // An image is one task, its pixels in row-major order.
    int64_t const vertex_count = p.screen_vertices.size[1];
    parallel_for(batch, threads, [&](int64_t b) {
        std::vector<double> sums(3 * vertex_count, 0.0);
        for (int64_t i = 0; i < height * width; ++i) {
            int32_t const f = p.face_index.data[b * height * width + i];
            if (f < 0) continue;
            double grad[6] = {};
            add_antialias_gradient(p, b, static_cast<int>(i % width), static_cast<int>(i / width), grad);
            for (int k = 0; k < 3; ++k) {
                int64_t const v = p.faces.data[int64_t(3) * f + k];
                sums[3 * v] += grad[2 * k];
                sums[3 * v + 1] += grad[2 * k + 1];
            }
        }
        for (int64_t i = 0; i < 3 * vertex_count; ++i) p.grad_screen_vertices.data[b * 3 * vertex_count + i] = static_cast<T>(sums[i]);
    });
}

template void antialias_cpu(AntialiasParameters<float> const&, int);
template void antialias_cpu(AntialiasParameters<double> const&, int);
template void antialias_backward_cpu(AntialiasBackwardParameters<float> const&, int);
template void antialias_backward_cpu(AntialiasBackwardParameters<double> const&, int);

}  // namespace focus
