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

constexpr int kGroup = LanesOf<double>::kCount;  // pixels whose gradients are worked out at once

// Sums of `width` numbers for some of the vertices: a band of rows meets few of them.
class VertexSums {
  public:
    VertexSums(int64_t vertex_count, int64_t width, int64_t most_vertices)
        : width_(width), places_(vertex_count, 0), vertices_(std::min(vertex_count, most_vertices) + 1) {}

    // A vertex gets its place when it is met first; after the last one, `make` makes the sums, and `at` finds them. Without a branch: which
    // vertices are new cannot be foreseen.
    FOCUS_HD int32_t meet(int32_t vertex) {
        int32_t const place = places_[vertex];
        bool const is_new = place == 0;
        vertices_[count_] = vertex;
        count_ += is_new;
        return places_[vertex] = is_new ? count_ : place;
    }
    void make() { values_.resize(count_ * width_, 0.0); }
    FOCUS_HD double* at(int32_t place) { return values_.data() + (place - 1) * width_; }

    void add(VertexSums const& other) {
        vertices_.resize(std::min<size_t>(places_.size(), count_ + other.count_) + 1);
        for (int32_t i = 0; i < other.count_; ++i) meet(other.vertices_[i]);
        make();
        for (int32_t i = 0; i < other.count_; ++i) {
            double* const own = at(places_[other.vertices_[i]]);
            for (int64_t k = 0; k < width_; ++k) own[k] += other.values_[i * width_ + k];
        }
    }

    // The numbers [first, first + count) of each vertex; 0 where it was not met.
    template <typename T>
    void store(int64_t first, int64_t count, T* to) const {
        std::fill_n(to, static_cast<int64_t>(places_.size()) * count, T(0));
        for (int32_t i = 0; i < count_; ++i) {
            double const* const own = values_.data() + i * width_ + first;
            for (int64_t k = 0; k < count; ++k) to[vertices_[i] * count + k] = static_cast<T>(own[k]);
        }
    }

    void end_meeting() { std::vector<int32_t>().swap(places_); }

  private:
    int64_t width_;
    int32_t count_ = 0;
    std::vector<int32_t> places_;    // of each vertex, counted from 1; 0: not met
    std::vector<int32_t> vertices_;  // at each place, and one that is not met yet
    std::vector<double> values_;     // [places, width]
};

struct CoveredPixel {
    int32_t x, y, face;
    int32_t places[3];  // of its vertices in the sums
};

// Adds the pixels of some rows of image b, in row-major order, to the coordinates and attributes of their vertices.
template <typename T>
struct BandGradient {
    using V = Lanes<double>;

    RenderBackwardParameters<T> const& p;
    T const *vertices, *attributes, *grad_image;  // of the image
    int32_t const* face_index;
    int64_t width, area;

    FOCUS_HD BandGradient(RenderBackwardParameters<T> const& parameters, int64_t b)
        : p(parameters),
          vertices(p.screen_vertices.data + b * p.screen_vertices.stride()),
          attributes(attributes_of(p, b)),
          grad_image(p.grad_image.data + b * p.grad_image.stride()),
          face_index(p.face_index.data + b * p.face_index.stride()),
          width(p.face_index.size[2]),
          area(p.face_index.stride()) {}

    // Returns how many. `pixels` has room for one more.
    FOCUS_HD int64_t find_covered(int64_t row_begin, int64_t row_end, CoveredPixel* pixels, VertexSums& sums) const {
        int64_t count = 0;
        for (int64_t y = row_begin; y < row_end; ++y) {
            for (int64_t x = 0; x < width; ++x) {
                int32_t const f = face_index[y * width + x];
                pixels[count].x = static_cast<int32_t>(x);
                pixels[count].y = static_cast<int32_t>(y);
                pixels[count].face = f;
                count += f >= 0;
            }
        }
        for (int64_t i = 0; i < count; ++i) {
            int32_t const* const face = p.faces.data + int64_t(3) * pixels[i].face;
            for (int k = 0; k < 3; ++k) pixels[i].places[k] = sums.meet(face[k]);
        }
        return count;
    }

    // kChannels = 0 stands for any number of them.
    template <int kChannels>
    FOCUS_HD void add(CoveredPixel const* pixels, int64_t count, VertexSums& sums) const {
        int64_t const channels = kChannels ? kChannels : p.attributes.size[2];
        for (int64_t first = 0; first < count; first += kGroup) {
            // Named one by one: registers that are filled in a loop go through memory, and wait there. The last group may repeat a pixel.
            int64_t const last = count - 1;
            CoveredPixel const& p0 = pixels[first];
            CoveredPixel const& p1 = pixels[std::min(first + 1, last)];
            CoveredPixel const& p2 = pixels[std::min(first + 2, last)];
            CoveredPixel const& p3 = pixels[std::min(first + 3, last)];
            auto const of_each = [&](auto const& value)
                                     FOCUS_INLINE { return V{double(value(p0)), double(value(p1)), double(value(p2)), double(value(p3))}; };
            auto const vertex = [&](CoveredPixel const& pixel, int k)
                                    FOCUS_INLINE { return int64_t(p.faces.data[int64_t(3) * pixel.face + k]); };
            V x[3], y[3], z[3];
            for (int k = 0; k < 3; ++k) {
                x[k] = of_each([&](CoveredPixel const& pixel) FOCUS_INLINE { return vertices[3 * vertex(pixel, k)]; });
                y[k] = of_each([&](CoveredPixel const& pixel) FOCUS_INLINE { return vertices[3 * vertex(pixel, k) + 1]; });
                z[k] = of_each([&](CoveredPixel const& pixel) FOCUS_INLINE { return vertices[3 * vertex(pixel, k) + 2]; });
            }
            V const px = of_each([](CoveredPixel const& pixel) FOCUS_INLINE { return pixel.x; });
            V const py = of_each([](CoveredPixel const& pixel) FOCUS_INLINE { return pixel.y; });
            Location<V> const location(x, y, z, px, py, p.perspective_correct);
            auto const attribute = [&](int k, int64_t c) FOCUS_INLINE {
                return of_each([&](CoveredPixel const& pixel) FOCUS_INLINE { return attributes[vertex(pixel, k) * channels + c]; });
            };
            auto const grad_value = [&](int64_t c) FOCUS_INLINE {
                return of_each([&](CoveredPixel const& pixel) FOCUS_INLINE { return grad_image[c * area + pixel.y * width + pixel.x]; });
            };
            V grad[9] = {};
            if (p.grad_screen_vertices) {
                V grad_barycentric[3];
                find_barycentric_gradient(channels, attribute, grad_value, grad_barycentric);
                location.add_gradient(x, y, z, p.perspective_correct, grad_barycentric, static_cast<V const*>(nullptr), grad);
            }
            int const lanes = static_cast<int>(std::min<int64_t>(kGroup, count - first));
            for (int lane = 0; lane < lanes; ++lane) {
                CoveredPixel const& pixel = pixels[first + lane];
                T const* const values = grad_image + pixel.y * width + pixel.x;
                for (int k = 0; k < 3; ++k) {
                    double* const sum = sums.at(pixel.places[k]);
                    for (int i = 0; i < 3; ++i) sum[i] += grad[3 * k + i][lane];
                    double const weight = location.barycentric[k][lane];
                    for (int64_t c = 0; c < channels; ++c) sum[3 + c] += weight * static_cast<double>(values[c * area]);
                }
            }
        }
    }
};

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
    int64_t const width = p.grad_image.size[3], vertex_count = p.screen_vertices.size[1],
                  bands = std::max<int64_t>(1, (height + kBandRows - 1) / kBandRows);
    std::vector<std::unique_ptr<VertexSums>> sums(batch * bands);
    parallel_for(batch * bands, threads, [&](int64_t task) {
        int64_t const b = task / bands, row_begin = task % bands * kBandRows, row_end = std::min(height, row_begin + kBandRows);
        int64_t const most = (row_end - row_begin) * width;
        auto own = std::make_unique<VertexSums>(vertex_count, 3 + channels, 3 * most);
        std::unique_ptr<CoveredPixel[]> const pixels(new CoveredPixel[most + 1]);
        vectorized([&]() FOCUS_INLINE {
            BandGradient<T> const band(p, b);
            int64_t const count = band.find_covered(row_begin, row_end, pixels.get(), *own);
            own->make();
            if (channels == 3) {
                band.template add<3>(pixels.get(), count, *own);
            } else {
                band.template add<0>(pixels.get(), count, *own);
            }
        });
        if (task % bands > 0) own->end_meeting();
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
    VertexSums total(vertex_count, 3 + channels, vertex_count);
    for (int64_t b = 0; b < batch; ++b) total.add(*sums[b * bands]);
    total.store(3, channels, p.grad_attributes.data);
}

template void render_cpu(RenderParameters<float> const&, int);
template void render_cpu(RenderParameters<double> const&, int);
template void render_backward_cpu(RenderBackwardParameters<float> const&, int);
template void render_backward_cpu(RenderBackwardParameters<double> const&, int);

}  // namespace focus
