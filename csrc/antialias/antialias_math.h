// Which silhouette edge passes between two neighbouring pixel centres, and how that blends them; see docs/ops.md.
#pragma once

#include <cmath>

#include "antialias/antialias.h"
#include "common/macros.h"

namespace focus {

// A pair is a pixel and the next one along `axis`: 0 the one on its right, 1 the one below. An edge is named by the corner 3 * face + k
// of a face that it lies opposite of.

constexpr int kMostSteps = 64;  // faces that the surface is followed through
constexpr int kMostFaces = 64;  // that are looked at where more than two share an edge
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

// The line of pixel centres from one pixel to the next, along +-u. All vertices at its v count as above it, or all as below (on the side of
// larger v): so it passes through no vertex, and crosses no edge of a triangle, or two.
template <typename T>
struct Line {
    struct End {
        int32_t vertex;
        double u, v;
    };

    T const* vertices;
    int axis;          // u: 0 along x, 1 along y
    double direction;  // +1 or -1
    double u, v;       // of the other pixel's centre
    bool level_is_below;
    End end[2];  // of the edge that the line crosses now: the one above it, and the one below

    FOCUS_HD T const* at(int32_t vertex) const { return vertices + int64_t(3) * vertex; }
    FOCUS_HD int is_below(int32_t vertex) const {
        double const vertex_v = at(vertex)[1 - axis];
        return vertex_v > v || (level_is_below && vertex_v == v);
    }

    FOCUS_HD void set_end(int below, int32_t vertex) { end[below] = {vertex, double(at(vertex)[axis]), double(at(vertex)[1 - axis])}; }

    // > 0 for a point beyond the edge, 0 on it, < 0 before it.
    FOCUS_HD double side(double point_u, double point_v) const {
        return direction * ((end[1].v - end[0].v) * (point_u - end[0].u) - (end[1].u - end[0].u) * (point_v - end[0].v));
    }

    // The same for a vertex; NaN for one whose faces are not drawn.
    FOCUS_HD double side(int32_t vertex) const {
        T const* const position = at(vertex);
        double const value = side(double(position[axis]), double(position[1 - axis]));
        return position[2] > T(0) && position[2] - position[2] == T(0) && value - value == 0.0 ? value : double(NAN);
    }
};

// Follows the surface from a face on, in which the line begins, to the next pixel, which shows `target` (-1: the background). Returns
// kArrived, or the edge where the surface ends or folds back before that pixel; kNoEdge where it passes the pixel, unseen there.
template <typename P, typename T>
FOCUS_HD int32_t follow_surface(P const& p, Line<T> line, int32_t face, int32_t target) {
    // The line crosses the two edges at the corner that is alone on its side, and leaves by the one that the third corner lies before.
    int32_t const* const start = p.faces.data + int64_t(3) * face;
    // A pixel on the lowest edge or corner of its face is in it only if what is level counts as below.
    line.level_is_below = false;
    line.level_is_below = !line.is_below(start[0]) && !line.is_below(start[1]) && !line.is_below(start[2]);
    int const below[3] = {line.is_below(start[0]), line.is_below(start[1]), line.is_below(start[2])};
    if (below[0] == below[1] && below[1] == below[2]) return kNoEdge;
    int const alone = below[1] == below[2] ? 0 : below[0] == below[2] ? 1 : 2, one = (alone + 1) % 3, two = (alone + 2) % 3;
    line.set_end(below[alone], start[alone]);
    line.set_end(1 - below[alone], start[one]);
    double const side = line.side(start[two]);
    if (!(side != 0.0 && side == side)) return kNoEdge;
    int32_t edge = 3 * face + (side < 0.0 ? two : one);
    line.set_end(1 - below[alone], start[side < 0.0 ? one : two]);
    for (int step = 0; step < kMostSteps; ++step) {
        if (!(line.side(line.u, line.v) >= 0.0)) return kNoEdge;
        // Of the faces at the edge the first that lies beyond it; else one without area, which is neither here nor there.
        int32_t next = kNoEdge;
        bool beyond = false;
        int32_t other = p.neighbors.data[edge];
        for (int i = 0; other != edge && i < kMostFaces; ++i, other = p.neighbors.data[other]) {
            int32_t const apex = p.faces.data[other];
            if (apex == line.end[0].vertex || apex == line.end[1].vertex) continue;
            double const side = line.side(apex);
            if (side > 0.0 && other / 3 == target) return kArrived;
            if (beyond || !(side > 0.0 || (side == 0.0 && next < 0))) continue;
            next = other;
            beyond = side > 0.0;
        }
        if (next < 0) return edge;
        face = next / 3;
        if (face == target) return kArrived;
        // The line crosses another edge of the next face: the one from the corner between to the end of this edge on the other side.
        int32_t const apex = p.faces.data[next], k = next - 3 * face;
        int const below_apex = line.is_below(apex), first = (k + 1) % 3, second = (k + 2) % 3;
        edge = 3 * face + (p.faces.data[3 * face + first] == line.end[below_apex].vertex ? first : second);
        line.set_end(below_apex, apex);
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
        Line<T> line{};
        line.vertices = vertices;
        line.axis = axis;
        line.direction = i == 0 ? 1.0 : -1.0;
        line.u = axis == 0 ? (i == 0 ? next_x : x) : (i == 0 ? next_y : y);
        line.v = axis == 0 ? y : x;
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
    double const from_a = (axis == 0 ? y : x) - double(va[1 - axis]), to_b = double(vb[1 - axis]) - (axis == 0 ? y : x), w = from_a / dv;
    // From the nearer end: the other may be so far away that nothing but rounding is left.
    double const crossing_u = fabs(from_a) <= fabs(to_b) ? va[axis] + w * du : vb[axis] - to_b / dv * du;
    double const position = crossing_u - (axis == 0 ? x : y);
    crossing.share = (position < 0.0 ? 0.0 : position > 1.0 ? 1.0 : position) - 0.5;  // outside by rounding only
    crossing.grad[0][axis] = 1.0 - w;
    crossing.grad[1][axis] = w;
    for (int end = 0; end < 2; ++end) crossing.grad[end][1 - axis] = -du / dv * crossing.grad[end][axis];
    return crossing;
}

// Whether the second pixel of a pair lies in the image. An edge that is stored for another pair is none of find_edge's: it counts as none.
template <typename P>
FOCUS_HD bool has_pair(P const& p, int x, int y, int axis) {
    return axis == 0 ? x + 1 < p.edges.size[3] : y + 1 < p.edges.size[1];
}

// The pairs of a pixel with its neighbours left, right, above and below; 0 where no edge passes.
struct Blend {
    double in[4];   // share of the neighbour's colour in this pixel
    double out[4];  // share of this pixel's colour in the neighbour's

    // The weight of a neighbour's colour for each unit of its share. With H and V the shares along x and along y, (1 - H) (1 - V) of the
    // pixel is left: what both would take, H V, is halved between them.
    FOCUS_HD double weight_of_share(int n) const { return 1.0 - 0.5 * (in[n ^ 2] + in[n ^ 3]); }
    FOCUS_HD double weight(int n) const { return in[n] * weight_of_share(n); }
};

FOCUS_HD int64_t neighbor_offset(int n, int64_t width) { return (n < 2 ? 1 : width) * (n % 2 ? 1 : -1); }

struct NoVisit {
    FOCUS_HD void operator()(int, int32_t, Crossing const&) const {}
};

// The number of its pairs that an edge passes between; visit(n, edge, crossing) is called for each.
template <typename P, typename Visit = NoVisit>
FOCUS_HD int find_blend(P const& p, int64_t b, int x, int y, Blend* blend, Visit const& visit = {}) {
    int64_t const width = p.edges.size[3];
    int count = 0;
    for (int n = 0; n < 4; ++n) {
        int const axis = n / 2, own = n % 2;  // own: this pixel is the first of the pair
        int const px = axis == 0 && !own ? x - 1 : x, py = axis == 1 && !own ? y - 1 : y;
        blend->in[n] = blend->out[n] = 0.0;
        if (px < 0 || py < 0 || !has_pair(p, px, py, axis)) continue;
        int32_t const edge = p.edges.data[b * p.edges.stride() + (int64_t(2) * py + axis) * width + px];
        if (edge < 0 || edge / 3 >= p.faces.size[0]) continue;
        Crossing const crossing = locate_crossing(p, b, edge, px, py, axis);
        double const share = crossing.share;
        visit(n, edge, crossing);
        double const forward = share > 0.0 ? share : 0.0, backward = share < 0.0 ? -share : 0.0;
        blend->in[n] = own ? backward : forward;
        blend->out[n] = own ? forward : backward;
        ++count;
    }
    return count;
}

// One pixel of all channels.
template <typename T>
FOCUS_HD void antialias_pixel(AntialiasParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.face_index.size[2], area = p.face_index.stride(), channels = p.image.size[1];
    Blend blend;
    bool const any = find_blend(p, b, x, y, &blend) > 0;
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double const own = p.image.data[i];
        double value = own, least = own, greatest = own;
        for (int n = 0; any && n < 4; ++n) {
            if (!(blend.in[n] > 0.0)) continue;
            double const other = p.image.data[i + neighbor_offset(n, width)];
            value += blend.weight(n) * (other - own);
            least = other < least ? other : least;
            greatest = other > greatest ? other : greatest;
        }
        // A mean is outside of what it is made of by rounding only; but where nothing of a mask is left, that would be below 0.
        p.values.data[i] = static_cast<T>(value < least ? least : value > greatest ? greatest : value);
    }
}

// How one pixel of all channels moves: with its colours, and with the shares of its neighbours, which move with the edges.
template <typename T>
FOCUS_HD void antialias_pixel_tangent(AntialiasTangentParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width, channels = p.image.size[1];
    Blend blend;
    double moved[4] = {0.0, 0.0, 0.0, 0.0};  // of the shares
    T const* const tangents = p.screen_vertices_tangent ? p.screen_vertices_tangent.data + b * p.screen_vertices.stride() : nullptr;
    bool const any = find_blend(p, b, x, y, &blend, [&](int n, int32_t edge, Crossing const& crossing) {
                         if (!tangents || (crossing.share > 0.0) == (n % 2 == 1)) return;  // the other pixel of the pair changes
                         double sum = 0.0;
                         for (int end = 0; end < 2; ++end) {
                             T const* const tangent = tangents + int64_t(3) * p.faces.data[int64_t(3) * (edge / 3) + crossing.corner[end]];
                             for (int i = 0; i < 2; ++i) sum += crossing.grad[end][i] * tangent[i];
                         }
                         moved[n] = crossing.share > 0.0 ? sum : -sum;
                     }) > 0;
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double const own = p.image.data[i], own_tangent = p.image_tangent ? double(p.image_tangent.data[i]) : 0.0;
        double value = own_tangent;
        for (int n = 0; any && n < 4; ++n) {
            if (!(blend.in[n] > 0.0) && moved[n] == 0.0) continue;
            int64_t const there = i + neighbor_offset(n, width);
            double const weight_tangent = moved[n] * blend.weight_of_share(n) - 0.5 * blend.in[n] * (moved[n ^ 2] + moved[n ^ 3]);
            value += weight_tangent * (double(p.image.data[there]) - own);
            if (p.image_tangent) value += blend.weight(n) * (double(p.image_tangent.data[there]) - own_tangent);
        }
        p.values_tangent.data[i] = static_cast<T>(value);
    }
}

template <typename T>
FOCUS_HD void antialias_image_gradient(AntialiasBackwardParameters<T> const& p, int64_t b, int x, int y) {
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width, channels = p.image.size[1];
    Blend blend;
    bool const any = find_blend(p, b, x, y, &blend) > 0;
    for (int n = 0; any && n < 4; ++n) {
        if (!(blend.out[n] > 0.0)) continue;
        int const step = n % 2 ? 1 : -1;
        Blend neighbor;
        find_blend(p, b, n < 2 ? x + step : x, n < 2 ? y : y + step, &neighbor);
        blend.out[n] *= neighbor.weight_of_share(n);
    }
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + y * width + x;
        double grad = p.grad_values.data[i];
        for (int n = 0; any && n < 4; ++n) {
            if (blend.in[n] > 0.0) grad -= blend.weight(n) * p.grad_values.data[i];
            if (blend.out[n] > 0.0) grad += blend.out[n] * p.grad_values.data[i + neighbor_offset(n, width)];
        }
        p.grad_image.data[i] = static_cast<T>(grad);
    }
}

// d L / d (x, y) of the corners of the face that owns an edge, from one pair, added to grad[2 * corner + axis]. With X the pixel that
// changed, N the other, s_m the shares of X's neighbours across the pair, V their sum, and g the gradient of X's value,
// d L / d |share| = sum_c g_c ((1 - V / 2) (N_c - X_c) - sum_m s_m / 2 (M_c - X_c)).
template <typename T>
FOCUS_HD void add_crossing_gradient(AntialiasBackwardParameters<T> const& p, int64_t b, int32_t edge, int x, int y, int axis,
                                    double* grad) {
    if (!has_pair(p, x, y, axis)) return;
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width, channels = p.image.size[1];
    Crossing const crossing = locate_crossing(p, b, edge, x, y, axis);
    bool const second_changed = crossing.share > 0.0;
    int const n = 2 * axis + (second_changed ? 0 : 1);  // the other pixel, seen from the one that changed
    int const changed_x = second_changed && axis == 0 ? x + 1 : x, changed_y = second_changed && axis == 1 ? y + 1 : y;
    Blend blend;
    find_blend(p, b, changed_x, changed_y, &blend);
    double grad_share = 0.0;
    for (int64_t c = 0; c < channels; ++c) {
        int64_t const i = (b * channels + c) * area + changed_y * width + changed_x;
        double const own = p.image.data[i];
        double difference = blend.weight_of_share(n) * (p.image.data[i + neighbor_offset(n, width)] - own);
        for (int across = 2; across < 4; ++across) {
            int const m = n ^ across;
            if (blend.in[m] > 0.0) difference -= 0.5 * blend.in[m] * (p.image.data[i + neighbor_offset(m, width)] - own);
        }
        grad_share += p.grad_values.data[i] * (second_changed ? difference : -difference);
    }
    for (int end = 0; end < 2; ++end) {
        for (int i = 0; i < 2; ++i) grad[2 * crossing.corner[end] + i] += grad_share * crossing.grad[end][i];
    }
}

}  // namespace focus
