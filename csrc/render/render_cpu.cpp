#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
#include "common/vertex_parts.h"
#include "render/render_math.h"

namespace focus {

namespace {

// Adds the pixels of image b, in row-major order, to the positions and attributes of the vertices of a part: `sums` is [V, 3 + channels].
// kChannels = 0 stands for any number of them.
template <int kChannels, typename T>
FOCUS_HD void add_image(RenderBackwardParameters<T> const& p, int64_t b, VertexPart const& part, double* sums) {
    int64_t const channels = kChannels ? kChannels : p.attributes.size[2], numbers = 3 + channels;
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2], area = p.face_index.stride();
    T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
    T const* const attributes = attributes_of(p, b);
    T const* const grad_image = p.grad_image.data + b * p.grad_image.stride();
    int32_t const* const face_index = p.face_index.data + b * area;
    bool const perspective_correct = p.perspective_correct, moves = bool(p.grad_screen_vertices);
    for (int64_t y = 0; y < height && width > 0; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            int64_t const pixel = y * width + x;
            if (face_index[pixel] < 0) continue;
            int32_t const* const face = p.faces.data + int64_t(3) * face_index[pixel];
            if (!part.has_corner_of(face)) continue;
            Corners const at(vertices, face);
            Location const location = at.locate(int(x), int(y), perspective_correct);
            double grad[9] = {};
            if (moves) {
                double grad_barycentric[3];
                find_barycentric_gradient(
                    channels, [&](int k, int64_t c) FOCUS_INLINE { return double(attributes[face[k] * channels + c]); },
                    [&](int64_t c) FOCUS_INLINE { return double(grad_image[c * area + pixel]); }, grad_barycentric);
                location.add_gradient(at.x, at.y, at.z, perspective_correct, grad_barycentric, static_cast<double const*>(nullptr), grad);
            }
            for (int k = 0; k < 3; ++k) {
                if (!part.has(face[k])) continue;
                double* const sum = sums + (face[k] - part.begin) * numbers;
                for (int i = 0; i < 3; ++i) sum[i] += grad[3 * k + i];
                for (int64_t c = 0; c < channels; ++c) sum[3 + c] += location.barycentric[k] * double(grad_image[c * area + pixel]);
            }
        }
    }
}

template <typename T, int kRank>
TensorView<T, kRank> images_of(TensorView<T, kRank> view, int64_t first, int64_t count) {
    view.data += first * view.stride();
    view.size[0] = count;
    return view;
}

// Images [first, first + count).
template <typename T>
void render_images(RenderParameters<T> const& p, int64_t first, int64_t count, int threads) {
    int64_t const channels = p.image.size[1], height = p.image.size[2], width = p.image.size[3], area = height * width;
    std::unique_ptr<T[]> const barycentric(new T[3 * count * area]), depth(new T[count * area]);
    RasterizeParameters<T> found{};
    found.screen_vertices = images_of(p.screen_vertices, first, count);
    found.faces = p.faces;
    found.cull = p.cull;
    found.perspective_correct = p.perspective_correct;
    found.barycentric = {barycentric.get(), {count, height, width, 3}};
    found.depth = {depth.get(), {count, height, width}};
    found.face_index = images_of(p.face_index, first, count);
    rasterize_cpu(found, threads);
    parallel_for(count * height, threads, [&](int64_t row) {
        int64_t const b = first + row / height, begin = row % height * width;
        T const* const attributes = attributes_of(p, b);
        int32_t const* const face_index = p.face_index.data + b * area;
        T const* const coordinates = barycentric.get() + 3 * (b - first) * area;
        for (int64_t pixel = begin; pixel < begin + width; ++pixel) {
            int32_t const f = face_index[pixel];
            p.mask.data[b * area + pixel] = f < 0 ? T(0) : T(1);
            T* const values = p.image.data + b * channels * area + pixel;
            for (int64_t c = 0; c < channels; ++c) {
                values[c * area] =
                    f < 0 ? T(0) : interpolate_channel(attributes, channels, p.faces.data + int64_t(3) * f, coordinates + 3 * pixel, c);
            }
        }
    });
}

}  // namespace

template <typename T>
void render_cpu(RenderParameters<T> const& p, int threads) {
    int64_t const batch = p.face_index.size[0];
    if (p.face_index.count() == 0) return;
    // As few images at a time as keep the threads busy: their coordinates are still near the processor when they are read.
    if (batch < threads) {
        render_images(p, 0, batch, threads);
    } else {
        parallel_for(batch, threads, [&](int64_t b) { render_images(p, b, 1, 1); });
    }
}

template <typename T>
void render_backward_cpu(RenderBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.grad_image.size[0], channels = p.grad_image.size[1], vertex_count = p.screen_vertices.size[1],
                  numbers = 3 + channels;
    bool const shared = p.grad_attributes && p.attributes.size[0] == 1;
    // Images that share attributes are added in batch order afterwards.
    std::vector<double> shared_sums(shared ? batch * vertex_count * channels : 0);
    VertexParts const parts = parts_of_shown_vertices(p, vertex_count, threads);
    parallel_for(parts.count(), threads, [&](int64_t task) {
        int64_t const b = parts.image(task);
        VertexPart const part = parts.part(task);
        std::vector<double> sums(part.size() * numbers, 0.0);
        vectorized([&]() FOCUS_INLINE {
            if (channels == 3) {
                add_image<3>(p, b, part, sums.data());
            } else {
                add_image<0>(p, b, part, sums.data());
            }
        });
        for (int64_t v = part.begin; v < part.end; ++v) {
            double const* const sum = sums.data() + (v - part.begin) * numbers;
            int64_t const row = b * vertex_count + v;
            if (p.grad_screen_vertices) std::copy_n(sum, 3, p.grad_screen_vertices.data + 3 * row);
            if (shared) std::copy_n(sum + 3, channels, shared_sums.data() + row * channels);
            if (p.grad_attributes && !shared) std::copy_n(sum + 3, channels, p.grad_attributes.data + row * channels);
        }
    });
    for (int64_t i = 0; shared && i < vertex_count * channels; ++i) {
        double total = 0.0;
        for (int64_t b = 0; b < batch; ++b) total += shared_sums[b * vertex_count * channels + i];
        p.grad_attributes.data[i] = static_cast<T>(total);
    }
}

template <typename T>
void render_tangent_cpu(RenderTangentParameters<T> const& p, int threads) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    parallel_for(p.face_index.size[0] * height, threads, [&](int64_t row) {
        for (int64_t x = 0; x < width; ++x) render_pixel_tangent(p, row / height, row % height, x);
    });
}

template void render_cpu(RenderParameters<float> const&, int);
template void render_cpu(RenderParameters<double> const&, int);
template void render_backward_cpu(RenderBackwardParameters<float> const&, int);
template void render_backward_cpu(RenderBackwardParameters<double> const&, int);
template void render_tangent_cpu(RenderTangentParameters<float> const&, int);
template void render_tangent_cpu(RenderTangentParameters<double> const&, int);

}  // namespace focus
