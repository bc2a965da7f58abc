#include <algorithm>
#include <cmath>
#include <vector>

#include "antialias/antialias_math.h"
#include "common/parallel.h"
#include "common/vertex_parts.h"

namespace focus {

namespace {

// Which way a face is turned on the screen: the sign of its area, 0 where it is not drawn, or where rounding could hide the sign.
template <typename T>
int8_t find_turn(T const* vertices, int32_t const* face) {
    T const *const a = vertices + int64_t(3) * face[0], *const b = vertices + int64_t(3) * face[1],
                   *const c = vertices + int64_t(3) * face[2];
    double const bx = double(b[0]) - a[0], by = double(b[1]) - a[1], cx = double(c[0]) - a[0], cy = double(c[1]) - a[1];
    double const area = bx * cy - cx * by, noise = 1e-13 * (fabs(bx) + fabs(cx)) * (fabs(by) + fabs(cy));
    double const depths = double(a[2]) + b[2] + c[2];
    bool const drawn = a[2] > T(0) && b[2] > T(0) && c[2] > T(0) && depths - depths == 0.0;
    return static_cast<int8_t>(drawn ? (area > noise) - (area < -noise) : 0);
}

// Marks the first pixels of all pairs that the line from a to b can cross.
template <typename T>
void mark_line(T const* a, T const* b, int64_t height, int64_t width, uint8_t* marks) {
    constexpr double kSlack = 0.01, kLargest = 1e9;  // pixels: for rounding, which is less than that below the latter
    double const ax = a[0], ay = a[1], bx = b[0], by = b[1];
    double const left = std::min(ax, bx) - kSlack, right = std::max(ax, bx) + kSlack;
    double const top = std::min(ay, by) - kSlack, bottom = std::max(ay, by) + kSlack;
    if (!(right >= 0.0 && bottom >= 0.0 && left <= width && top <= height)) return;  // NaN, too
    double const slope = (bx - ax) / (by - ay);
    bool const exact = left > -kLargest && right < kLargest && top > -kLargest && bottom < kLargest && slope - slope == 0.0;
    auto const last = static_cast<int64_t>(std::min(height - 1.0, bottom));
    for (auto y = static_cast<int64_t>(ceil(std::max(0.0, top - 1.0))); y <= last; ++y) {
        // Where the line is from this row to the next.
        double low = left, high = right;
        if (exact) {
            double const from = ax + (std::max(y + 0.0, top) - ay) * slope, to = ax + (std::min(y + 1.0, bottom) - ay) * slope;
            low = std::max(low, std::min(from, to) - kSlack);
            high = std::min(high, std::max(from, to) + kSlack);
        }
        auto const end = static_cast<int64_t>(std::min(width - 1.0, high));
        for (auto x = static_cast<int64_t>(ceil(std::max(0.0, low - 1.0))); x <= end; ++x) marks[y * width + x] = 1;
    }
}

// Marks the pixels near all edges at which the surface could end or fold back: no other pair can be blended. Most pairs of a detailed
// mesh need not be followed then.
template <typename T>
void mark_outlines(AntialiasParameters<T> const& p, TensorView<Seam const, 1> const& seams, int64_t b, uint8_t* marks) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2], face_count = p.faces.size[0];
    T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
    int32_t const* const faces = p.faces.data;
    std::vector<int8_t> turns(face_count);
    for (int64_t face = 0; face < face_count; ++face) turns[face] = find_turn(vertices, faces + 3 * face);
    for (int64_t i = 0; i < seams.size[0]; ++i) {
        Seam const seam = seams.data[i];
        int32_t const face = seam.corner / 3;
        if (seam.other_face >= 0 && turns[face] != 0 && turns[face] == seam.sign * turns[seam.other_face]) continue;
        int32_t const start = faces[3 * face + (seam.corner + 1) % 3], end = faces[3 * face + (seam.corner + 2) % 3];
        mark_line(vertices + int64_t(3) * start, vertices + int64_t(3) * end, height, width, marks);
    }
}

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

int64_t find_seams(TensorView<int32_t const, 2> const& faces, TensorView<int32_t const, 1> const& neighbors, Seam* seams) {
    Seam* end = seams;
    for (int32_t corner = 0; corner < neighbors.size[0]; ++corner) {
        int32_t const other = neighbors.data[corner];
        if (other == corner || neighbors.data[other] != corner) {
            *end++ = {corner, -1, 1};
        } else if (corner < other) {
            int32_t const face = corner / 3, other_face = other / 3;
            bool const opposite = faces.data[3 * face + (corner + 2) % 3] == faces.data[3 * other_face + (other + 1) % 3];
            *end++ = {corner, other_face, opposite ? 1 : -1};
        }
    }
    return end - seams;
}

template <typename T>
void antialias_cpu(AntialiasParameters<T> const& p, int threads) {
    if (p.face_index.count() == 0) return;
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2], rows = p.face_index.size[0] * height;
    std::vector<uint8_t> marks(rows * width, 0);
    std::vector<Seam> found;
    TensorView<Seam const, 1> seams = p.seams;
    if (!seams) {
        found.resize(p.neighbors.size[0]);
        seams = {found.data(), {find_seams(p.faces, p.neighbors, found.data())}};
    }
    parallel_for(p.face_index.size[0], threads, [&](int64_t b) { mark_outlines(p, seams, b, marks.data() + b * height * width); });
    parallel_for(rows, threads, [&](int64_t row) {
        uint8_t const* const marked = marks.data() + row * width;
        for (int axis = 0; axis < 2; ++axis) {
            int32_t* const edges = p.edges.data + (2 * row + axis) * width;
            for (int x = 0; x < width; ++x) {
                edges[x] = marked[x] ? find_edge(p, row / height, x, static_cast<int>(row % height), axis) : kNoEdge;
            }
        }
    });
    for_blended_pixels(p, p.image.data, p.values.data, threads, [&](int64_t b, int x, int y) { antialias_pixel(p, b, x, y); });
}

template <typename T>
void antialias_backward_cpu(AntialiasBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.edges.size[0], width = p.edges.size[3], height = width ? p.edges.size[1] : 0;
    if (p.grad_image && height) {
        for_blended_pixels(p, p.grad_values.data, p.grad_image.data, threads,
                           [&](int64_t b, int x, int y) { antialias_image_gradient(p, b, x, y); });
    }
    if (!p.grad_screen_vertices) return;
    int64_t const vertex_count = p.screen_vertices.size[1], pairs = 2 * height * width;
    auto const face_at = [&](int64_t b, int64_t i) -> int32_t const* {
        int32_t const edge = p.edges.data[b * pairs + i];
        return edge < 0 ? nullptr : p.faces.data + int64_t(3) * (edge / 3);
    };
    VertexParts const parts(batch, pairs, vertex_count, threads, face_at);
    parallel_for(parts.count(), threads, [&](int64_t task) {
        int64_t const b = parts.image(task);
        VertexPart const part = parts.part(task);
        std::vector<double> sums(2 * part.size(), 0.0);
        for (int64_t row = 0; row < 2 * height; ++row) {
            int32_t const* const edges = p.edges.data + (2 * height * b + row) * width;
            for (int x = 0; x < width; ++x) {
                if (edges[x] < 0) continue;
                int32_t const* const face = p.faces.data + int64_t(3) * (edges[x] / 3);
                if (!part.has_corner_of(face)) continue;
                double grad[6] = {};
                add_crossing_gradient(p, b, edges[x], x, static_cast<int>(row / 2), static_cast<int>(row % 2), grad);
                for (int k = 0; k < 3; ++k) {
                    if (!part.has(face[k])) continue;
                    int64_t const v = face[k] - part.begin;
                    sums[2 * v] += grad[2 * k];
                    sums[2 * v + 1] += grad[2 * k + 1];
                }
            }
        }
        T* const grad_vertices = p.grad_screen_vertices.data + 3 * (b * vertex_count + part.begin);
        for (int64_t v = 0; v < part.size(); ++v) {
            grad_vertices[3 * v] = static_cast<T>(sums[2 * v]);
            grad_vertices[3 * v + 1] = static_cast<T>(sums[2 * v + 1]);
            grad_vertices[3 * v + 2] = T(0);
        }
    });
}

template <typename T>
void antialias_tangent_cpu(AntialiasTangentParameters<T> const& p, int threads) {
    int64_t const height = p.edges.size[1], width = p.edges.size[3];
    parallel_for(p.edges.size[0] * height, threads, [&](int64_t row) {
        for (int x = 0; x < width; ++x) antialias_pixel_tangent(p, row / height, x, static_cast<int>(row % height));
    });
}

template void antialias_cpu(AntialiasParameters<float> const&, int);
template void antialias_cpu(AntialiasParameters<double> const&, int);
template void antialias_backward_cpu(AntialiasBackwardParameters<float> const&, int);
template void antialias_backward_cpu(AntialiasBackwardParameters<double> const&, int);
template void antialias_tangent_cpu(AntialiasTangentParameters<float> const&, int);
template void antialias_tangent_cpu(AntialiasTangentParameters<double> const&, int);

}  // namespace focus
