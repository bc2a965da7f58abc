// Which silhouette edge passes between two neighbouring pixel centres, and how that blends them; see docs/ops.md.
#pragma once

#include <cmath>

#include "antialias/antialias.h"
#include "common/macros.h"

namespace focus {

// A pair is a pixel and the next one along `axis`: 0 the one on its right, 1 the one below. An edge is named by the corner 3 * face + k
// of a face that it lies opposite of.

constexpr int kMostSteps = 64;  // faces that are walked through between two pixel centres
constexpr int32_t kNoEdge = -1;
constexpr int32_t kArrived = -2;  // the surface goes on to the other pixel

// Depth of a face at a pixel centre, linear on the screen.
template <typename T>
FOCUS_HD double screen_depth(T const* vertices, int32_t const* face, int x, int y) {
    double e[3], sum = 0.0;
    for (int k = 0; k < 3; ++k) {
        T const* const a = vertices + int64_t(3) * face[(k + 1) % 3];
        T const* const b = vertices + int64_t(3) * face[(k + 2) % 3];
        e[k] = (double(b[0]) - a[0]) * (y - double(a[1])) - (double(b[1]) - a[1]) * (x - double(a[0]));
        sum += e[k];
    }
    double const z0 = vertices[int64_t(3) * face[0] + 2];
    return z0 + e[1] / sum * (vertices[int64_t(3) * face[1] + 2] - z0) + e[2] / sum * (vertices[int64_t(3) * face[2] + 2] - z0);
}

// The line of pixel centres from a pixel on, along +-u. Vertices at v count as below it (v > 0 of the line), so that it passes through
// no vertex: it crosses no edge of a triangle, or two.
template <typename T>
struct Line {
    T const* vertices;
    int axis;          // u: 0 along x, 1 along y
    double direction;  // +1 or -1
    double u, v;       // of the pixel centre

    FOCUS_HD T const* at(int32_t vertex) const { return vertices + int64_t(3) * vertex; }
    FOCUS_HD bool is_below(int32_t vertex) const { return at(vertex)[1 - axis] > v; }

    // From the pixel centre to where the line crosses an edge, which it does.
    FOCUS_HD double distance(int32_t a, int32_t b) const {
        T const *const va = at(a), *const vb = at(b);
        double const w = (v - va[1 - axis]) / (double(vb[1 - axis]) - va[1 - axis]);
        return direction * (va[axis] + w * (double(vb[axis]) - va[axis]) - u);
    }

    // > 0 where a vertex lies beyond the edge from a to b, which the line crosses; 0 on it. NaN for one whose faces are not drawn.
    FOCUS_HD double beyond(int32_t a, int32_t b, int32_t vertex) const {
        T const *const upper = at(is_below(a) ? b : a), *const lower = at(is_below(a) ? a : b), *const c = at(vertex);
        double const du = double(lower[axis]) - upper[axis], dv = double(lower[1 - axis]) - upper[1 - axis];
        double const side = direction * (dv * (double(c[axis]) - upper[axis]) - du * (double(c[1 - axis]) - upper[1 - axis]));
        return c[2] > T(0) && c[2] - c[2] == T(0) && side - side == 0.0 ? side : double(NAN);
    }
};

// The corner of a face that neither a nor b is; -1 where they are not both its vertices.
FOCUS_HD int corner_beside(int32_t const* face, int32_t a, int32_t b) {
    for (int k = 0; k < 3; ++k) {
        int32_t const next = face[(k + 1) % 3], last = face[(k + 2) % 3];
        if ((next == a && last == b) || (next == b && last == a)) return k;
    }
    return -1;
}

// Follows the surface from the face at the line's pixel to the next pixel, which shows `target` (-1: the background). Returns kArrived,
// the edge where the surface ends or folds back before that pixel, or kNoEdge where it does neither: it passes the pixel, unseen there.
template <typename P, typename T>
FOCUS_HD int32_t follow_surface(P const& p, Line<T> const& line, int32_t face, int32_t target) {
    int32_t const* corners = p.faces.data + int64_t(3) * face;
    int exit = -1;
    double t = 0.0;
    for (int k = 0; k < 3; ++k) {
        int32_t const a = corners[(k + 1) % 3], b = corners[(k + 2) % 3];
        if (line.is_below(a) == line.is_below(b)) continue;
        double const distance = line.distance(a, b);
        if (exit >= 0 && !(distance > t)) continue;
        t = distance;
        exit = k;
    }
    if (exit < 0) return kNoEdge;
    for (int step = 0; step < kMostSteps; ++step) {
        if (!(t <= 1.0)) return kNoEdge;
        int32_t const a = corners[(exit + 1) % 3], b = corners[(exit + 2) % 3];
        int32_t next = -1;
        int next_corner = target < 0 || target == face ? -1 : corner_beside(p.faces.data + int64_t(3) * target, a, b);
        if (next_corner >= 0 && line.beyond(a, b, p.faces.data[int64_t(3) * target + next_corner]) > 0.0) return kArrived;
        // Of the faces at the edge the first that lies beyond it; else one without area, which is neither here nor there.
        for (int32_t i = p.offsets.data[a]; i < p.offsets.data[a + 1]; ++i) {
            int32_t const corner = p.corners.data[i], other = corner / 3, k = corner - 3 * other;
            if (other == face) continue;
            int32_t const* const vertices = p.faces.data + int64_t(3) * other;
            bool const forward = vertices[(k + 1) % 3] == b;
            if (!forward && vertices[(k + 2) % 3] != b) continue;
            int const apex = (k + (forward ? 2 : 1)) % 3;
            if (vertices[apex] == a || vertices[apex] == b) continue;
            double const beyond = line.beyond(a, b, vertices[apex]);
            if (!(beyond > 0.0) && !(beyond == 0.0 && next < 0)) continue;
            next = other;
            next_corner = apex;
            if (beyond > 0.0) break;
        }
        if (next < 0) return 3 * face + exit;
        if (next == target) return kArrived;
        // Of the two other edges the line crosses the one whose ends lie on both sides of it.
        face = next;
        corners = p.faces.data + int64_t(3) * face;
        int32_t const apex = corners[next_corner];
        int const first = (next_corner + 1) % 3, second = (next_corner + 2) % 3;
        exit = line.is_below(apex) == line.is_below(corners[first]) ? first : second;
        t = line.distance(corners[(exit + 1) % 3], corners[(exit + 2) % 3]);
    }
    return kNoEdge;
}

// The silhouette edge that blends a pair of image b; kNoEdge where there is none.
template <typename T>
FOCUS_HD int32_t find_edge(AntialiasParameters<T> const& p, int64_t b, int x, int y, int axis) {
    int const width = int(p.face_index.size[2]), next_x = x + 1 - axis, next_y = y + axis;
    if (next_x >= width || next_y >= p.face_index.size[1]) return kNoEdge;
    int32_t const* const image = p.face_index.data + b * p.face_index.stride();
    int32_t const face[2] = {image[int64_t(y) * width + x], image[int64_t(next_y) * width + next_x]};
    if (face[0] == face[1]) return kNoEdge;
    T const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
    int32_t edge[2] = {kNoEdge, kNoEdge};
    for (int i = 0; i < 2; ++i) {
        if (face[i] < 0 || face[i] >= p.faces.size[0]) continue;
        Line<T> const line{vertices, axis, i == 0 ? 1.0 : -1.0, double(axis == 0 ? (i == 0 ? x : next_x) : (i == 0 ? y : next_y)),
                           double(axis == 0 ? y : x)};
        edge[i] = follow_surface(p, line, face[i], face[1 - i] < p.faces.size[0] ? face[1 - i] : -1);
        if (edge[i] == kArrived) return kNoEdge;
    }
    // Where both surfaces end on the way, the nearer is seen to.
    int chosen = edge[0] >= 0 ? 0 : 1;
    if (edge[0] >= 0 && edge[1] >= 0) {
        double const first = screen_depth(vertices, p.faces.data + int64_t(3) * face[0], x, y);
        double const second = screen_depth(vertices, p.faces.data + int64_t(3) * face[1], next_x, next_y);
        chosen = first < second || (first == second && face[0] < face[1]) ? 0 : 1;
    }
    if (edge[chosen] < 0) return kNoEdge;
    // Each edge blends along one axis only: along both, an oblique edge would count twice.
    int32_t const owner = edge[chosen] / 3, k = edge[chosen] - 3 * owner;
    int32_t const* const corners = p.faces.data + int64_t(3) * owner;
    T const *const va = vertices + int64_t(3) * corners[(k + 1) % 3], *const vb = vertices + int64_t(3) * corners[(k + 2) % 3];
    double const dx = fabs(double(vb[0]) - va[0]), dy = fabs(double(vb[1]) - va[1]);
    return (axis == 0 ? dx > dy : dx <= dy) ? kNoEdge : edge[chosen];
}

// Where an edge crosses a pair.
struct Crossing {
    double share;       // position between the first pixel (-1/2) and the second (1/2): what one gets of the other's colour
    int corner[2];      // of the face that owns the edge: the ends
    double grad[2][2];  // d share / d (x, y) of these
};

template <typename P>
FOCUS_HD Crossing locate_crossing(P const& p, int64_t b, int32_t edge, int x, int y, int axis) {
    int32_t const face = edge / 3, k = edge - 3 * face;
    Crossing crossing;
    crossing.corner[0] = (k + 1) % 3;
    crossing.corner[1] = (k + 2) % 3;
    auto const* const vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
    auto const* const va = vertices + int64_t(3) * p.faces.data[int64_t(3) * face + crossing.corner[0]];
    auto const* const vb = vertices + int64_t(3) * p.faces.data[int64_t(3) * face + crossing.corner[1]];
    double const du = double(vb[axis]) - va[axis], dv = double(vb[1 - axis]) - va[1 - axis];
    double const w = ((axis == 0 ? y : x) - double(va[1 - axis])) / dv;
    double const position = va[axis] + w * du - (axis == 0 ? x : y);
    crossing.share = (position < 0.0 ? 0.0 : position > 1.0 ? 1.0 : position) - 0.5;  // outside by rounding only
    crossing.grad[0][axis] = 1.0 - w;
    crossing.grad[1][axis] = w;
    for (int end = 0; end < 2; ++end) crossing.grad[end][1 - axis] = -du / dv * crossing.grad[end][axis];
    return crossing;
}

// The pairs of a pixel with its neighbours left, right, above and below; 0 where no edge passes.
struct Blend {
    double in[4];   // share of the neighbour's colour in this pixel
    double out[4];  // share of this pixel's colour in the neighbour's
};

FOCUS_HD int64_t neighbor_offset(int n, int64_t width) { return (n < 2 ? 1 : width) * (n % 2 ? 1 : -1); }

template <typename P>
FOCUS_HD bool find_blend(P const& p, int64_t b, int x, int y, Blend* blend) {
    int64_t const width = p.edges.size[3];
    bool any = false;
    for (int n = 0; n < 4; ++n) {
        int const axis = n / 2, own = n % 2;  // own: this pixel is the first of the pair
        int const px = axis == 0 && !own ? x - 1 : x, py = axis == 1 && !own ? y - 1 : y;
        blend->in[n] = blend->out[n] = 0.0;
        if (px < 0 || py < 0) continue;
        int32_t const edge = p.edges.data[b * p.edges.stride() + (int64_t(2) * py + axis) * width + px];
        if (edge < 0 || edge / 3 >= p.faces.size[0]) continue;
        double const share = locate_crossing(p, b, edge, px, py, axis).share;
        double const forward = share > 0.0 ? share : 0.0, backward = share < 0.0 ? -share : 0.0;
        blend->in[n] = own ? backward : forward;
        blend->out[n] = own ? forward : backward;
        any = true;
    }
    return any;
}

// One pixel of all channels.
template <typename T>
FOCUS_HD void antialias_pixel(AntialiasParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.face_index.size[2], area = p.face_index.stride(), channels = p.image.size[1];
    Blend blend;
    bool const any = find_blend(p, b, x, y, &blend);
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double value = p.image.data[i];
        for (int n = 0; any && n < 4; ++n) {
            if (blend.in[n] > 0.0) value += blend.in[n] * (double(p.image.data[i + neighbor_offset(n, width)]) - p.image.data[i]);
        }
        p.values.data[i] = static_cast<T>(value);
    }
}

template <typename T>
FOCUS_HD void antialias_image_gradient(AntialiasBackwardParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width, channels = p.image.size[1];
    Blend blend;
    bool const any = find_blend(p, b, x, y, &blend);
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double grad = p.grad_values.data[i];
        for (int n = 0; any && n < 4; ++n) {
            grad -= blend.in[n] * p.grad_values.data[i];
            if (blend.out[n] > 0.0) grad += blend.out[n] * p.grad_values.data[i + neighbor_offset(n, width)];
        }
        p.grad_image.data[i] = static_cast<T>(grad);
    }
}

// d L / d (x, y) of the corners of the face that owns an edge, from one pair, added to grad[2 * corner + axis]. Whichever pixel changed,
// d L / d share = sum_c g_c (first_c - second_c) with g the gradient of that pixel's value.
template <typename T>
FOCUS_HD void add_crossing_gradient(AntialiasBackwardParameters<T> const& p, int64_t b, int32_t edge, int x, int y, int axis,
                                    double* grad) {
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width, channels = p.image.size[1];
    Crossing const crossing = locate_crossing(p, b, edge, x, y, axis);
    int64_t const first = b * channels * area + y * width + x, second = first + (axis == 0 ? 1 : width);
    double grad_share = 0.0;
    for (int64_t c = 0; c < channels; ++c) {
        double const difference = double(p.image.data[first + c * area]) - p.image.data[second + c * area];
        grad_share += p.grad_values.data[(crossing.share > 0.0 ? second : first) + c * area] * difference;
    }
    for (int end = 0; end < 2; ++end) {
        for (int i = 0; i < 2; ++i) grad[2 * crossing.corner[end] + i] += grad_share * crossing.grad[end][i];
    }
}

}  // namespace focus
