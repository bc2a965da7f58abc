#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
#include "common/vertex_parts.h"
#include "rasterize/rasterize_math.h"

namespace focus {

namespace {

constexpr int kGroup = LanesOf<double>::kCount;  // small faces, or pixels of a large one, that are tested at once
constexpr int64_t kSmallBox = 24;                // pixels; a face with a larger box is drawn by itself
constexpr int64_t kFaceChunk = 2048;             // faces that are looked through before any of them is drawn

// A face whose box contains a pixel centre of the image.
struct Candidate {
    int32_t face;
    PixelBox box;
};

using LaneBits = decltype(Lanes<double>{} < Lanes<double>{});  // all bits of a lane, or none

FOCUS_HD bool any(LaneBits bits) { return (bits[0] | bits[1] | bits[2] | bits[3]) != 0; }

typedef int32_t Integers __attribute__((vector_size(16)));

// The smallest box of pixel centres about a face, by four lanes: x and y of its lowest corner, and of the highest, negated. Most faces of a
// detailed mesh contain no pixel centre at all: this is all that is done for them. False only where nothing can be covered; vertices that
// are not finite are left to `draw_group`.
template <typename T>
FOCUS_HD bool find_box(T const* vertices, int32_t const* face, Integers limits, PixelBox* box) {
    typedef T Quad __attribute__((vector_size(4 * sizeof(T))));
    T const *const a = vertices + int64_t(3) * face[0], *const b = vertices + int64_t(3) * face[1],
                   *const c = vertices + int64_t(3) * face[2];
    Quad const va = {a[0], a[1], -a[0], -a[1]}, vb = {b[0], b[1], -b[0], -b[1]}, vc = {c[0], c[1], -c[0], -c[1]};
    Quad low = va < vb ? va : vb;
    low = low < vc ? low : vc;
    T const beyond = T(1 << 30);  // every image, and still an integer
    low = low > -beyond ? low : Quad{-beyond, -beyond, -beyond, -beyond};
    low = low < beyond ? low : Quad{beyond, beyond, beyond, beyond};
    Integers const truncated = __builtin_convertvector(low, Integers);
    auto const short_of_it = __builtin_convertvector(truncated, Quad) < low;
    Integers first = truncated - __builtin_convertvector(short_of_it, Integers);
    first = first > limits ? first : limits;
    Integers const negated{0, 0, -1, -1};
    Integers const corners = (first ^ negated) - negated;
    std::memcpy(box, &corners, sizeof(corners));
    return (first[0] + first[2] <= 0) & (first[1] + first[3] <= 0);
}

FOCUS_HD Integers box_limits(int64_t height, int64_t width) {
    return Integers{0, 0, 1 - static_cast<int>(width), 1 - static_cast<int>(height)};
}

// Draws the faces of one image into some of its rows.
template <typename T>
struct Painter {
    RasterizeParameters<T> const& p;
    T const* vertices;  // of the image
    int64_t first_pixel, width;

    FOCUS_HD Painter(RasterizeParameters<T> const& parameters, int64_t b)
        : p(parameters),
          vertices(p.screen_vertices.data + b * p.screen_vertices.stride()),
          first_pixel(b * p.depth.stride()),
          width(p.depth.size[2]) {}

    FOCUS_HD void put(int64_t pixel, int32_t face, T depth, T b0, T b1, T b2) const {
        int32_t const there = p.face_index.data[pixel];
        T const nearest = p.depth.data[pixel];
        bool const nearer = (there < 0) | (depth < nearest) | ((depth == nearest) & (face < there));
        if (!nearer) return;
        p.face_index.data[pixel] = face;
        p.depth.data[pixel] = depth;
        T* const barycentric = p.barycentric.data + 3 * pixel;
        barycentric[0] = b0;
        barycentric[1] = b1;
        barycentric[2] = b2;
    }

    FOCUS_HD void put_lane(int64_t pixel, int32_t face, CoverageOf<Lanes<double>> const& coverage, int lane) const {
        put(pixel, face, static_cast<T>(coverage.depth[lane]), static_cast<T>(coverage.barycentric[0][lane]),
            static_cast<T>(coverage.barycentric[1][lane]), static_cast<T>(coverage.barycentric[2][lane]));
    }

    // Four faces at once, each lane walking through the box of its own.
    FOCUS_HD void draw_group(Candidate const (&group)[kGroup]) const {
        // Named one by one: registers that are filled in a loop go through memory, and wait there.
        auto const of_each = [&](auto const& value) FOCUS_INLINE {
            return Lanes<double>{double(value(group[0])), double(value(group[1])), double(value(group[2])), double(value(group[3]))};
        };
        Lanes<double> x[3], y[3], z[3];
        for (int k = 0; k < 3; ++k) {
            auto const coordinate = [&](int axis) FOCUS_INLINE {
                return of_each([&](Candidate const& candidate)
                                   FOCUS_INLINE { return vertices[int64_t(3) * p.faces.data[int64_t(3) * candidate.face + k] + axis]; });
            };
            x[k] = coordinate(0);
            y[k] = coordinate(1);
            z[k] = coordinate(2);
        }
        Lanes<double> const x_min = of_each([](Candidate const& candidate) FOCUS_INLINE { return candidate.box.x_min; });
        Lanes<double> const x_max = of_each([](Candidate const& candidate) FOCUS_INLINE { return candidate.box.x_max; });
        Lanes<double> const y_min = of_each([](Candidate const& candidate) FOCUS_INLINE { return candidate.box.y_min; });
        Lanes<double> const y_max = of_each([](Candidate const& candidate) FOCUS_INLINE { return candidate.box.y_max; });
        int32_t const faces[kGroup] = {group[0].face, group[1].face, group[2].face, group[3].face};
        Edge<Lanes<double>> edges[3];
        // The area is finite only where x and y are.
        LaneBits drawn = is_drawn(make_edges(x, y, edges), p.cull);
        for (int k = 0; k < 3; ++k) drawn &= (z[k] > 0.0) & (z[k] < std::numeric_limits<double>::infinity());
        Lanes<double> px = x_min, py = y_min;
        for (LaneBits active = drawn & (py <= y_max); any(active);) {
            EdgeValues<Lanes<double>> const at(edges, px, py);
            LaneBits const covered = at.inside() & active;
            CoverageOf<Lanes<double>> coverage;
            coverage.find(at, z, p.perspective_correct);
            int lanes[kGroup + 1], count = 0;  // the covered ones, found without a branch: which they are cannot be foreseen
            for (int lane = 0; lane < kGroup; ++lane) {
                lanes[count] = lane;
                count -= static_cast<int>(covered[lane]);
            }
            for (int i = 0; i < count; ++i) {
                int const lane = lanes[i];
                int64_t const pixel = first_pixel + static_cast<int32_t>(py[lane]) * width + static_cast<int32_t>(px[lane]);
                put_lane(pixel, faces[lane], coverage, lane);
            }
            px += 1.0;
            LaneBits const row_ends = px > x_max;
            px = row_ends ? x_min : px;
            py = row_ends ? py + 1.0 : py;
            active &= py <= y_max;
        }
    }

    FOCUS_HD bool make(Candidate const& candidate, Triangle* triangle) const {
        int const height = static_cast<int>(p.depth.size[1]);
        return make_triangle(vertices, p.faces.data + int64_t(3) * candidate.face, p.cull, height, static_cast<int>(width), triangle);
    }

    FOCUS_HD void draw_small(Candidate const& candidate) const {
        Triangle triangle;
        if (!make(candidate, &triangle)) return;
        Coverage coverage;
        for (int y = candidate.box.y_min; y <= candidate.box.y_max; ++y) {
            for (int x = candidate.box.x_min; x <= candidate.box.x_max; ++x) {
                if (!cover(triangle, x, y, p.perspective_correct, &coverage)) continue;
                put(first_pixel + y * width + x, candidate.face, static_cast<T>(coverage.depth), static_cast<T>(coverage.barycentric[0]),
                    static_cast<T>(coverage.barycentric[1]), static_cast<T>(coverage.barycentric[2]));
            }
        }
    }

    // One face, four pixels of a row at once. Of each row only what lies between the edges is tested, give or take a pixel.
    FOCUS_HD void draw_large(Candidate const& candidate) const {
        Triangle triangle;
        if (!make(candidate, &triangle)) return;
        Edge<Lanes<double>> edges[3];
        Lanes<double> z[3];
        for (int k = 0; k < 3; ++k) {
            Edge<double> const& edge = triangle.edge[k];
            edges[k] = {all_lanes(edge.x), all_lanes(edge.y), all_lanes(edge.dx), all_lanes(edge.dy), all_lanes(edge.sign)};
            z[k] = all_lanes(triangle.z[k]);
        }
        for (int y = candidate.box.y_min; y <= candidate.box.y_max; ++y) {
            double low = candidate.box.x_min, high = candidate.box.x_max;
            for (Edge<double> const& edge : triangle.edge) {
                double const crossing = edge.x + edge.dx * (y - edge.y) / edge.dy;  // not finite where the edge is level
                if (!is_finite(crossing)) continue;
                if (edge.sign * edge.dy < 0.0) {
                    low = std::max(low, crossing - 1.0);
                } else {
                    high = std::min(high, crossing + 1.0);
                }
            }
            if (!(low <= high)) continue;
            Lanes<double> px = Lanes<double>{0.0, 1.0, 2.0, 3.0} + static_cast<int>(low);
            int64_t const row = first_pixel + y * width;
            for (int64_t first = static_cast<int64_t>(low); first <= high; first += kGroup, px += double(kGroup)) {
                EdgeValues<Lanes<double>> const at(edges, px, all_lanes(double(y)));
                LaneBits const covered = at.inside() & (px <= double(candidate.box.x_max));
                if (!any(covered)) continue;
                CoverageOf<Lanes<double>> coverage;
                coverage.find(at, z, p.perspective_correct);
                for (int lane = 0; lane < kGroup; ++lane) {
                    if (covered[lane]) put_lane(row + first + lane, candidate.face, coverage, lane);
                }
            }
        }
    }

    FOCUS_HD void clear(int64_t row_begin, int64_t row_end) const {
        int64_t const first = first_pixel + row_begin * width, count = (row_end - row_begin) * width;
        std::fill_n(p.face_index.data + first, count, -1);
        std::fill_n(p.depth.data + first, count, T(0));
        std::fill_n(p.barycentric.data + 3 * first, 3 * count, T(0));
    }

    // Large faces one by one, small ones in groups where AVX2 makes that pay. The order does not matter: of equal depths the lower index
    // wins.
    FOCUS_HD void draw(Candidate* candidates, int64_t count, bool grouped) const {
        int64_t small = 0;
        for (int64_t i = 0; i < count; ++i) {
            if (candidates[i].box.count() > kSmallBox) {
                draw_large(candidates[i]);
            } else {
                candidates[small++] = candidates[i];
            }
        }
        for (int64_t i = 0; i < small; ++i) {
            if (!grouped) {
                draw_small(candidates[i]);
            } else if (i % kGroup == kGroup - 1 || i == small - 1) {
                Candidate group[kGroup];
                for (int lane = 0; lane < kGroup; ++lane) group[lane] = candidates[std::min(i, i / kGroup * kGroup + lane)];
                draw_group(group);  // a face that fills up the last group is drawn twice, which changes nothing
            }
        }
    }

    // The faces of [begin, end) that may cover a pixel of the image; returns how many.
    FOCUS_HD int64_t find_candidates(int64_t begin, int64_t end, Candidate* candidates) const {
        Integers const limits = box_limits(p.depth.size[1], width);
        int64_t count = 0;
        for (int64_t f = begin; f < end; ++f) {
            candidates[count].face = static_cast<int32_t>(f);
            count += find_box(vertices, p.faces.data + 3 * f, limits, &candidates[count].box);
        }
        return count;
    }
};

int64_t face_chunks(int64_t face_count) { return (face_count + kFaceChunk - 1) / kFaceChunk; }

// Whole images, a task each.
template <typename T>
void rasterize_images(RasterizeParameters<T> const& p, int threads) {
    int64_t const face_count = p.faces.size[0];
    bool const grouped = uses_avx2();
    parallel_for(p.depth.size[0], threads, [&](int64_t b) {
        vectorized([&]() FOCUS_INLINE {
            Painter<T> const painter(p, b);
            painter.clear(0, p.depth.size[1]);
            Candidate candidates[kFaceChunk + 1];
            for (int64_t begin = 0; begin < face_count; begin += kFaceChunk) {
                int64_t const count = painter.find_candidates(begin, std::min(face_count, begin + kFaceChunk), candidates);
                painter.draw(candidates, count, grouped);
            }
        });
    });
}

// Few images: first all threads look through the faces and sort them by the bands of rows that they touch, then each draws bands.
template <typename T>
void rasterize_bands(RasterizeParameters<T> const& p, int threads) {
    constexpr int64_t kBandsPerThread = 4;
    int64_t const batch = p.depth.size[0], face_count = p.faces.size[0], height = p.depth.size[1], chunks = face_chunks(face_count);
    int64_t const bands = std::min<int64_t>(height, (kBandsPerThread * threads + batch - 1) / batch);
    auto const row_begin = [&](int64_t band) { return static_cast<int>(height * band / bands); };
    bool const grouped = uses_avx2();
    std::vector<int> band_of(height);
    for (int64_t band = 0; band < bands; ++band)
        std::fill(band_of.begin() + row_begin(band), band_of.begin() + row_begin(band + 1), int(band));
    std::vector<std::vector<Candidate>> found(batch * chunks * bands);
    auto const find = [&](int64_t task) {
        int64_t const begin = task % chunks * kFaceChunk;
        Candidate candidates[kFaceChunk + 1];
        int64_t count = 0;
        vectorized([&]() FOCUS_INLINE {
            count = Painter<T>(p, task / chunks).find_candidates(begin, std::min(face_count, begin + kFaceChunk), candidates);
        });
        for (int64_t i = 0; i < count; ++i) {
            PixelBox const box = candidates[i].box;
            for (int band = band_of[box.y_min]; band <= band_of[box.y_max]; ++band) {
                std::vector<Candidate>& list = found[task * bands + band];
                if (list.empty()) list.reserve(count);
                list.push_back(candidates[i]);
                list.back().box.y_min = std::max(box.y_min, row_begin(band));
                list.back().box.y_max = std::min(box.y_max, row_begin(band + 1) - 1);
            }
        }
    };
    auto const draw = [&](int64_t task) {
        int64_t const b = task / bands, band = task % bands;
        vectorized([&]() FOCUS_INLINE {
            Painter<T> const painter(p, b);
            painter.clear(row_begin(band), row_begin(band + 1));
            for (int64_t chunk = b * chunks; chunk < (b + 1) * chunks; ++chunk) {
                std::vector<Candidate>& list = found[chunk * bands + band];
                painter.draw(list.data(), static_cast<int64_t>(list.size()), grouped);
            }
        });
    };
    parallel_for(batch * chunks, find, batch * bands, draw, threads);
}

}  // namespace

template <typename T>
void rasterize_cpu(RasterizeParameters<T> const& p, int threads) {
    if (p.depth.count() == 0) return;
    if (threads == 1 || p.depth.size[0] >= threads) {
        rasterize_images(p, threads);
    } else {
        rasterize_bands(p, threads);
    }
}

template <typename T>
void rasterize_backward_cpu(RasterizeBackwardParameters<T> const& p, int threads) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    int64_t const vertex_count = p.screen_vertices.size[1];
    VertexParts const parts = parts_of_shown_vertices(p, vertex_count, threads);
    parallel_for(parts.count(), threads, [&](int64_t task) {
        int64_t const b = parts.image(task);
        VertexPart const part = parts.part(task);
        T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
        std::vector<double> sum(3 * part.size(), 0.0);
        for (int64_t y = 0; y < height && width > 0; ++y) {
            for (int64_t x = 0; x < width; ++x) {
                int64_t const pixel = (b * height + y) * width + x;
                int32_t const f = p.face_index.data[pixel];
                if (f < 0) continue;
                int32_t const* const face = p.faces.data + int64_t(3) * f;
                if (!part.has_corner_of(face)) continue;
                double grad[9] = {};
                add_rasterize_gradient(vertices, face, int(x), int(y), p.perspective_correct,
                                       p.grad_barycentric ? p.grad_barycentric.data + 3 * pixel : nullptr,
                                       p.grad_depth ? p.grad_depth.data + pixel : nullptr, grad);
                for (int i = 0; i < 9; ++i) {
                    if (part.has(face[i / 3])) sum[3 * (face[i / 3] - part.begin) + i % 3] += grad[i];
                }
            }
        }
        std::copy(sum.begin(), sum.end(), p.grad_screen_vertices.data + b * p.grad_screen_vertices.stride() + 3 * part.begin);
    });
}

template <typename T>
void rasterize_tangent_cpu(RasterizeTangentParameters<T> const& p, int threads) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    parallel_for(p.face_index.size[0] * height, threads, [&](int64_t row) {
        for (int64_t x = 0; x < width; ++x) rasterize_pixel_tangent(p, row / height, row % height, x);
    });
}

template void rasterize_cpu(RasterizeParameters<float> const&, int);
template void rasterize_cpu(RasterizeParameters<double> const&, int);
template void rasterize_backward_cpu(RasterizeBackwardParameters<float> const&, int);
template void rasterize_backward_cpu(RasterizeBackwardParameters<double> const&, int);
template void rasterize_tangent_cpu(RasterizeTangentParameters<float> const&, int);
template void rasterize_tangent_cpu(RasterizeTangentParameters<double> const&, int);

}  // namespace focus
