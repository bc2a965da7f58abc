#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "rasterize/rasterize_math.h"

namespace focus {

namespace {

// Rows of one task. Every task looks at every face, so bands are only as many as keep the threads busy; the result does not depend on them.
int64_t band_count(int64_t batch, int64_t height, int threads) {
    if (batch >= threads || height == 0) return 1;
    return std::min<int64_t>(height, (threads + batch - 1) / std::max<int64_t>(batch, 1));
}

}  // namespace

template <typename T>
void rasterize_cpu(RasterizeParameters<T> const& p, int threads) {
    int64_t const batch = p.depth.size[0], height = p.depth.size[1], width = p.depth.size[2];
    int64_t const bands = band_count(batch, height, threads);
    parallel_for(batch * bands, threads, [&](int64_t task) {
        int64_t const b = task / bands, band = task % bands;
        int const row_begin = static_cast<int>(height * band / bands), row_end = static_cast<int>(height * (band + 1) / bands);
        T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
        int64_t const first = b * height * width + row_begin * width, count = (row_end - row_begin) * width;
        std::fill_n(p.face_index.data + first, count, -1);
        std::fill_n(p.depth.data + first, count, T(0));
        std::fill_n(p.barycentric.data + 3 * first, 3 * count, T(0));

        Triangle triangle;
        Coverage coverage;
        for (int64_t f = 0; f < p.faces.size[0]; ++f) {
            if (!make_triangle(vertices, p.faces.data + 3 * f, p.cull, int(height), int(width), &triangle)) continue;
            PixelBox const box = triangle.box;
            for (int y = std::max(box.y_min, row_begin); y <= std::min(box.y_max, row_end - 1); ++y) {
                for (int x = box.x_min; x <= box.x_max; ++x) {
                    if (!cover(triangle, x, y, p.perspective_correct, &coverage)) continue;
                    int64_t const pixel = (b * height + y) * width + x;
                    T const depth = static_cast<T>(coverage.depth);
                    // Faces come in ascending order, so a strict comparison gives ties to the lower index.
                    if (p.face_index.data[pixel] >= 0 && !(depth < p.depth.data[pixel])) continue;
                    p.face_index.data[pixel] = static_cast<int32_t>(f);
                    p.depth.data[pixel] = depth;
                    for (int k = 0; k < 3; ++k) p.barycentric.data[3 * pixel + k] = static_cast<T>(coverage.barycentric[k]);
                }
            }
        }
    });
}

template <typename T>
void rasterize_backward_cpu(RasterizeBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.face_index.size[0], height = p.face_index.size[1], width = p.face_index.size[2];
    int64_t const vertex_count = p.screen_vertices.size[1];
    // An image is one task: its pixels are added in row-major order, the same on every run and for every thread count.
    parallel_for(batch, threads, [&](int64_t b) {
        T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
        std::vector<double> sum(3 * vertex_count, 0.0);
        for (int64_t y = 0; y < height; ++y) {
            for (int64_t x = 0; x < width; ++x) {
                int64_t const pixel = (b * height + y) * width + x;
                int32_t const f = p.face_index.data[pixel];
                if (f < 0) continue;
                int32_t const* const face = p.faces.data + int64_t(3) * f;
                double grad[9] = {};
                add_rasterize_gradient(vertices, face, int(x), int(y), p.perspective_correct,
                                       p.grad_barycentric ? p.grad_barycentric.data + 3 * pixel : nullptr,
                                       p.grad_depth ? p.grad_depth.data + pixel : nullptr, grad);
                for (int i = 0; i < 9; ++i) sum[int64_t(3) * face[i / 3] + i % 3] += grad[i];
            }
        }
        std::copy(sum.begin(), sum.end(), p.grad_screen_vertices.data + b * p.grad_screen_vertices.stride());
    });
}

template void rasterize_cpu(RasterizeParameters<float> const&, int);
template void rasterize_cpu(RasterizeParameters<double> const&, int);
template void rasterize_backward_cpu(RasterizeBackwardParameters<float> const&, int);
template void rasterize_backward_cpu(RasterizeBackwardParameters<double> const&, int);

}  // namespace focus
