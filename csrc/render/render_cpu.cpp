#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
#include "render/render_math.h"

namespace focus {

namespace {

// Rows of one task of the backward pass: of a fixed number, so that sums have the same bits for every thread count.
constexpr int64_t kBandRows = 16;

// Sums of `width` numbers for the vertices that were met, in the order in which they were: a band of rows meets few of them.
class VertexSums {
  public:
    VertexSums(int64_t vertex_count, int64_t width) : width_(width), places_(vertex_count, 0) {}

    int64_t place(int32_t vertex) {
        if (places_[vertex] == 0) {
            vertices_.push_back(vertex);
            values_.resize(values_.size() + width_, 0.0);
            places_[vertex] = static_cast<int32_t>(vertices_.size());
        }
        return (places_[vertex] - 1) * width_;
    }

    double* values() { return values_.data(); }

    void add(VertexSums const& other) {
        for (size_t i = 0; i < other.vertices_.size(); ++i) {
            double* const own = values_at(other.vertices_[i]);
            for (int64_t k = 0; k < width_; ++k) own[k] += other.values_[i * width_ + k];
        }
    }

    // Numbers first to first + count of each vertex; 0 where it was not met.
    template <typename T>
    void store(int64_t first, int64_t count, T* to) const {
        std::fill_n(to, static_cast<int64_t>(places_.size()) * count, T(0));
        for (size_t i = 0; i < vertices_.size(); ++i) {
            double const* const own = values_.data() + i * width_ + first;
            for (int64_t k = 0; k < count; ++k) to[vertices_[i] * count + k] = static_cast<T>(own[k]);
        }
    }

    void release_places() { std::vector<int32_t>().swap(places_); }

  private:
    double* values_at(int32_t vertex) {
        int64_t const at = place(vertex);
        return values_.data() + at;
    }

    int64_t width_;
    std::vector<int32_t> places_;    // of each vertex, counted from 1; 0: not met
    std::vector<int32_t> vertices_;  // at each place
    std::vector<double> values_;     // [places, width]
};

// Adds the pixels of some rows of image b, in row-major order, to the three screen coordinates and the attributes of their vertices.
// kChannels = 0 stands for any number of them.
template <int kChannels, typename T>
FOCUS_HD void add_rows(RenderBackwardParameters<T> const& p, int64_t b, int64_t row_begin, int64_t row_end, VertexSums& sums) {
    int64_t const channels = kChannels ? kChannels : p.grad_image.size[1];
    int64_t const width = p.grad_image.size[3], area = p.grad_image.size[2] * width;
    T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
    T const* const attributes = attributes_of(p, b);
    for (int64_t y = row_begin; y < row_end; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            int64_t const pixel = y * width + x;
            int32_t const f = p.face_index.data[b * area + pixel];
            if (f < 0) continue;
            int32_t const* const face = p.faces.data + int64_t(3) * f;
            T const* const grad_image = p.grad_image.data + b * channels * area + pixel;
            int64_t const places[3] = {sums.place(face[0]), sums.place(face[1]), sums.place(face[2])};
            double grad[9] = {}, barycentric[3];
            if (p.grad_screen_vertices) {
                add_render_gradient(vertices, attributes, channels, face, int(x), int(y), p.perspective_correct, grad_image, area, grad);
            }
            if (p.grad_attributes) find_barycentric(vertices, face, int(x), int(y), p.perspective_correct, barycentric);
            for (int k = 0; k < 3; ++k) {
                double* const sum = sums.values() + places[k];
                for (int i = 0; i < 3; ++i) sum[i] += grad[3 * k + i];
                if (!p.grad_attributes) continue;
                for (int64_t c = 0; c < channels; ++c) sum[3 + c] += barycentric[k] * static_cast<double>(grad_image[c * area]);
            }
        }
    }
}

}  // namespace

template <typename T>
void render_cpu(RenderParameters<T> const& p, int threads) {
    int64_t const batch = p.image.size[0], channels = p.image.size[1], height = p.image.size[2], width = p.image.size[3];
    int64_t const area = height * width;
    std::unique_ptr<T[]> const barycentric(new T[3 * batch * area]), depth(new T[batch * area]);
    RasterizeParameters<T> found{};
    found.screen_vertices = p.screen_vertices;
    found.faces = p.faces;
    found.cull = p.cull;
    found.perspective_correct = p.perspective_correct;
    found.barycentric = {barycentric.get(), {batch, height, width, 3}};
    found.depth = {depth.get(), {batch, height, width}};
    found.face_index = p.face_index;
    rasterize_cpu(found, threads);
    parallel_for(batch * height, threads, [&](int64_t row) {
        int64_t const b = row / height, first = row % height * width;
        T const* const attributes = attributes_of(p, b);
        for (int64_t pixel = first; pixel < first + width; ++pixel) {
            int32_t const f = p.face_index.data[b * area + pixel];
            p.mask.data[b * area + pixel] = f < 0 ? T(0) : T(1);
            T* const values = p.image.data + b * channels * area + pixel;
            for (int64_t c = 0; c < channels; ++c) {
                values[c * area] = f < 0 ? T(0)
                                         : interpolate_channel(attributes, channels, p.faces.data + int64_t(3) * f,
                                                               barycentric.get() + 3 * (b * area + pixel), c);
            }
        }
    });
}

template <typename T>
void render_backward_cpu(RenderBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.grad_image.size[0], channels = p.grad_image.size[1], height = p.grad_image.size[2];
    int64_t const vertex_count = p.screen_vertices.size[1], bands = std::max<int64_t>(1, (height + kBandRows - 1) / kBandRows);
    std::vector<std::unique_ptr<VertexSums>> sums(batch * bands);
    parallel_for(batch * bands, threads, [&](int64_t task) {
        int64_t const b = task / bands, row_begin = task % bands * kBandRows, row_end = std::min(height, row_begin + kBandRows);
        auto own = std::make_unique<VertexSums>(vertex_count, 3 + channels);
        vectorized([&]() FOCUS_INLINE {
            if (channels == 3) {
                add_rows<3>(p, b, row_begin, row_end, *own);
            } else {
                add_rows<0>(p, b, row_begin, row_end, *own);
            }
        });
        if (task % bands > 0) own->release_places();
        sums[task] = std::move(own);
    });
    bool const shared = p.attributes.size[0] == 1;
    parallel_for(batch, threads, [&](int64_t b) {
        VertexSums& image = *sums[b * bands];
        for (int64_t band = 1; band < bands; ++band) image.add(*sums[b * bands + band]);
        if (p.grad_screen_vertices) image.store(0, 3, p.grad_screen_vertices.data + b * p.grad_screen_vertices.stride());
        if (p.grad_attributes && !shared) image.store(3, channels, p.grad_attributes.data + b * p.grad_attributes.stride());
    });
    if (!p.grad_attributes || !shared) return;
    VertexSums total(vertex_count, 3 + channels);
    for (int64_t b = 0; b < batch; ++b) total.add(*sums[b * bands]);
    total.store(3, channels, p.grad_attributes.data);
}

template void render_cpu(RenderParameters<float> const&, int);
template void render_cpu(RenderParameters<double> const&, int);
template void render_backward_cpu(RenderBackwardParameters<float> const&, int);
template void render_backward_cpu(RenderBackwardParameters<double> const&, int);

}  // namespace focus
