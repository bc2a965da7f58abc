// Coverage, barycentrics and depth of one triangle, and their gradients; see docs/conventions.md for the rules.
#pragma once

#include <cstring>

#include "common/vector.h"
#include "rasterize/rasterize.h"

namespace focus {

// V is double; the CPU kernel also takes Lanes<double>, for four triangles or four pixels at once.

template <typename V>
FOCUS_HD V splat(double value) {
    return V{} + value;
}

// The line through two vertices, as a function that is positive on one side. The end points are put into one order (by x, then y) before
// any arithmetic, and the sign restored after it, so that the two faces of an edge compute exactly opposite numbers: no pixel between
// them is lost. Double precision makes the differences of float coordinates exact and the sign right on and near the pixel grid. No
// target contracts these into multiply-adds (see CMakeLists.txt): the same bits everywhere.
template <typename V>
struct Edge {
    V x, y;    // the first end point in the canonical order
    V dx, dy;  // from it to the other
    V sign;    // +1 or -1: what the canonical order did to the direction

    FOCUS_HD V operator()(V px, V py) const { return sign * (dx * (py - y) - dy * (px - x)); }
};

template <typename V>
FOCUS_HD Edge<V> make_edge(V ax, V ay, V bx, V by) {
    auto const ordered = (ax < bx) | ((ax == bx) & (ay <= by));
    Edge<V> edge;
    edge.x = ordered ? ax : bx;
    edge.y = ordered ? ay : by;
    edge.dx = ordered ? bx - ax : ax - bx;
    edge.dy = ordered ? by - ay : ay - by;
    edge.sign = ordered ? splat<V>(1.0) : splat<V>(-1.0);
    return edge;
}

// `edge[k]` faces vertex k and is >= 0 inside, whatever the winding. Returns twice the signed area; with y down it is positive for
// vertices that run clockwise on the screen.
template <typename V>
FOCUS_HD V make_edges(V const* x, V const* y, Edge<V>* edge) {
    for (int k = 0; k < 3; ++k) {
        int const a = (k + 1) % 3, b = (k + 2) % 3;
        edge[k] = make_edge(x[a], y[a], x[b], y[b]);
    }
    V const area = edge[0](x[0], y[0]);
    for (int k = 0; k < 3; ++k) edge[k].sign = area < 0.0 ? -edge[k].sign : edge[k].sign;
    return area;
}

// The edge functions at a pixel centre.
template <typename V>
struct EdgeValues {
    FOCUS_HD EdgeValues(Edge<V> const* edge, V px, V py) {
        for (int k = 0; k < 3; ++k) e[k] = edge[k](px, py);
        sum = e[0] + e[1] + e[2];
    }

    // Whether the pixel centre lies inside the triangle or on its edges.
    FOCUS_HD auto inside() const { return (e[0] >= 0.0) & (e[1] >= 0.0) & (e[2] >= 0.0) & (sum > 0.0); }

    V e[3], sum;
};

template <typename V>
struct CoverageOf {
    V barycentric[3];
    V depth;  // mm

    // Where in a triangle with these depths a pixel inside it lies.
    FOCUS_HD void find(EdgeValues<V> const& at, V const* z, bool perspective_correct) {
        for (int k = 0; k < 3; ++k) barycentric[k] = at.e[k] / at.sum;
        if (perspective_correct) {
            V const q0 = barycentric[0] / z[0], q1 = barycentric[1] / z[1], q2 = barycentric[2] / z[2], q = q0 + q1 + q2;
            barycentric[0] = q0 / q;
            barycentric[1] = q1 / q;
            barycentric[2] = q2 / q;
            depth = 1.0 / q;
        } else {  // exact where the three depths are equal: ties stay ties
            depth = z[0] + barycentric[1] * (z[1] - z[0]) + barycentric[2] * (z[2] - z[0]);
        }
        // Rounding may leave the triangle by an ulp of its largest depth: below 0, where the smallest is tiny.
        V low = z[0] < z[1] ? z[0] : z[1], high = z[0] < z[1] ? z[1] : z[0];
        low = z[2] < low ? z[2] : low;
        high = z[2] > high ? z[2] : high;
        depth = depth > low ? depth : low;
        depth = depth < high ? depth : high;
    }
};

using Coverage = CoverageOf<double>;

// A triangle ready to be tested against pixels.
struct Triangle {
    Edge<double> edge[3];
    double z[3];   // depths of the vertices, mm
    PixelBox box;  // pixels that may be covered, inside the image
};

// Whether a face with this area (of make_edges) is drawn.
template <typename V>
FOCUS_HD auto is_drawn(V area, Cull cull) {
    auto const drawn = (area != 0.0) & (area - area == 0.0);  // and finite
    return cull == Cull::kNone ? drawn : cull == Cull::kClockwise ? drawn & (area < 0.0) : drawn & (area > 0.0);
}

FOCUS_HD int first_pixel(double low) {  // the first pixel centre at or right of `low`, at least 0
    if (!(low > 0.0)) return 0;
    return low > 2147483646.0 ? 2147483647 : static_cast<int>(ceil(low));
}

FOCUS_HD int last_pixel(double high, int size) {  // the last pixel centre at or left of `high`, at most size - 1
    if (high < 0.0) return -1;
    return high >= static_cast<double>(size - 1) ? size - 1 : static_cast<int>(floor(high));
}

// False where the face covers nothing: a vertex not finite or not in front of the camera, zero area, culled, or outside the image.
template <typename T>
FOCUS_HD bool make_triangle(T const* screen_vertices, int32_t const* face, Cull cull, int height, int width, Triangle* triangle) {
    // All loads before the first test: a card waits for them once, and not for one after the other.
    int32_t const index[3] = {face[0], face[1], face[2]};
    Vector3<T> const v[3] = {load3(screen_vertices + int64_t(3) * index[0]), load3(screen_vertices + int64_t(3) * index[1]),
                             load3(screen_vertices + int64_t(3) * index[2])};
    double x[3], y[3];
    for (int k = 0; k < 3; ++k) {
        if (!is_finite(v[k]) || !(v[k].z > T(0))) return false;
        x[k] = v[k].x;
        y[k] = v[k].y;
        triangle->z[k] = v[k].z;
    }
    // The box first: it is cheap and most faces of a detailed mesh contain no pixel centre at all.
    double const x_low = fmin(x[0], fmin(x[1], x[2])), x_high = fmax(x[0], fmax(x[1], x[2]));
    double const y_low = fmin(y[0], fmin(y[1], y[2])), y_high = fmax(y[0], fmax(y[1], y[2]));
    triangle->box = {first_pixel(x_low), first_pixel(y_low), last_pixel(x_high, width), last_pixel(y_high, height)};
    if (triangle->box.x_min > triangle->box.x_max || triangle->box.y_min > triangle->box.y_max) return false;

    return is_drawn(make_edges(x, y, triangle->edge), cull);
}

// Whether the triangle covers the pixel centre; fills in where.
FOCUS_HD bool cover(Triangle const& triangle, int px, int py, bool perspective_correct, Coverage* coverage) {
    EdgeValues<double> const at(triangle.edge, px, py);
    if (!at.inside()) return false;
    coverage->find(at, triangle.z, perspective_correct);
    return true;
}

// Orders (depth, face) pairs by depth, then by face, as one unsigned number: the bits of positive floats grow with them.
FOCUS_HD unsigned long long nearest_key(float depth, int32_t face) {
    uint32_t bits;
    memcpy(&bits, &depth, sizeof(bits));
    return static_cast<unsigned long long>(bits) << 32 | static_cast<uint32_t>(face);
}

constexpr unsigned long long kNoFace = ~0ull;  // beyond every key

// Where in its face a covered pixel lies, for gradients.
struct Location {
    double b[3], scale;     // affine barycentrics, and 1 / (twice the signed area)
    double q[3], s;         // b_k / z_k and their sum; in perspective only
    double barycentric[3];  // b, or in perspective b'

    FOCUS_HD Location(double const* x, double const* y, double const* z, double px, double py, bool perspective_correct) {
        double sum = 0.0;
        for (int k = 0; k < 3; ++k) {
            int const i = (k + 1) % 3, j = (k + 2) % 3;
            b[k] = make_edge(x[i], y[i], x[j], y[j])(px, py);
            sum += b[k];
        }
        scale = 1.0 / sum;
        for (int k = 0; k < 3; ++k) barycentric[k] = b[k] *= scale;
        if (!perspective_correct) return;
        for (int k = 0; k < 3; ++k) q[k] = b[k] / z[k];
        s = q[0] + q[1] + q[2];
        for (int k = 0; k < 3; ++k) barycentric[k] = q[k] / s;
    }

    // Gradient with respect to the three screen vertices, added to `grad[3 * corner + axis]`, of the gradients of the barycentrics and
    // (nullptr: none) of the depth.
    //
    // Affine: p = sum_k b_k v_k with sum_k b_k = 1, so moving vertex k by d moves the barycentrics as moving the pixel by -b_k d would:
    //   d b_j / d v_k = -b_k grad_p b_j.   With G = sum_j g_j grad_p b_j the gradient of vertex k is -b_k G.
    // Perspective: b'_k = q_k / s with q_k = b_k / z_k, s = sum q, depth = 1 / s; the chain rule leads back to the affine b and to z.
    FOCUS_HD void add_gradient(double const* x, double const* y, double const* z, bool perspective_correct, double const* grad_barycentric,
                               double const* grad_depth, double* grad) const {
        double g[3] = {grad_barycentric[0], grad_barycentric[1], grad_barycentric[2]}, gx[3], gy[3];
        if (perspective_correct) {
            double mean = g[0] * barycentric[0] + g[1] * barycentric[1] + g[2] * barycentric[2];
            if (grad_depth) mean += *grad_depth / s;
            for (int k = 0; k < 3; ++k) {
                double const gq = (g[k] - mean) / s;
                grad[3 * k + 2] -= gq * b[k] / (z[k] * z[k]);
                g[k] = gq / z[k];
            }
        } else if (grad_depth) {
            for (int k = 0; k < 3; ++k) {
                g[k] += *grad_depth * (z[k] - z[0]);  // less z[0], which adds nothing as sum_k b_k = 1, and would drown the differences
                grad[3 * k + 2] += *grad_depth * b[k];
            }
        }
        find_pixel_gradients(x, y, gx, gy);
        double const big_gx = scale * (g[0] * gx[0] + g[1] * gx[1] + g[2] * gx[2]);
        double const big_gy = scale * (g[0] * gy[0] + g[1] * gy[1] + g[2] * gy[2]);
        for (int k = 0; k < 3; ++k) {
            grad[3 * k + 0] -= b[k] * big_gx;
            grad[3 * k + 1] -= b[k] * big_gy;
        }
    }

    // How the barycentrics (and, unless it is nullptr, the depth) move where the corners move by (dx, dy, dz): the transpose of
    // add_gradient. The corners carry the pixel by sum_k b_k d_k, and it falls behind by as much.
    FOCUS_HD void find_tangent(double const* x, double const* y, double const* z, bool perspective_correct, double const* dx,
                               double const* dy, double const* dz, double* barycentric_tangent, double* depth_tangent) const {
        double gx[3], gy[3], db[3];
        find_pixel_gradients(x, y, gx, gy);
        double const moved_x = b[0] * dx[0] + b[1] * dx[1] + b[2] * dx[2], moved_y = b[0] * dy[0] + b[1] * dy[1] + b[2] * dy[2];
        for (int k = 0; k < 3; ++k) barycentric_tangent[k] = db[k] = -scale * (gx[k] * moved_x + gy[k] * moved_y);
        if (perspective_correct) {
            double dq[3], ds = 0.0;
            for (int k = 0; k < 3; ++k) {
                dq[k] = (db[k] - q[k] * dz[k]) / z[k];
                ds += dq[k];
            }
            for (int k = 0; k < 3; ++k) barycentric_tangent[k] = (dq[k] - barycentric[k] * ds) / s;
            if (depth_tangent) *depth_tangent = -ds / (s * s);
        } else if (depth_tangent) {
            double sum = 0.0;
            for (int k = 0; k < 3; ++k) sum += db[k] * (z[k] - z[0]) + b[k] * dz[k];
            *depth_tangent = sum;
        }
    }

  private:
    // Of the three edge functions dx * (py - y) - dy * (px - x), with respect to the pixel.
    FOCUS_HD static void find_pixel_gradients(double const* x, double const* y, double* gx, double* gy) {
        for (int k = 0; k < 3; ++k) {
            int const i = (k + 1) % 3, j = (k + 2) % 3;
            gx[k] = -(y[j] - y[i]);
            gy[k] = x[j] - x[i];
        }
    }
};

// x, y and z of the corners of a face.
struct Corners {
    double x[3], y[3], z[3];

    template <typename T>
    FOCUS_HD Corners(T const* screen_vertices, int32_t const* face) {
        for (int k = 0; k < 3; ++k) {
            Vector3<T> const v = load3(screen_vertices + int64_t(3) * face[k]);
            x[k] = v.x;
            y[k] = v.y;
            z[k] = v.z;
        }
    }

    FOCUS_HD Location locate(int px, int py, bool perspective_correct) const {
        return Location(x, y, z, double(px), double(py), perspective_correct);
    }
};

// How one pixel moves with the vertices.
template <typename T>
FOCUS_HD void rasterize_pixel_tangent(RasterizeTangentParameters<T> const& p, int64_t b, int64_t y, int64_t x) {
    int64_t const pixel = (b * p.face_index.size[1] + y) * p.face_index.size[2] + x;
    int32_t const f = p.face_index.data[pixel];
    double barycentric_tangent[3] = {0.0, 0.0, 0.0}, depth_tangent = 0.0;
    if (f >= 0 && f < p.faces.size[0]) {
        int32_t const* const face = p.faces.data + int64_t(3) * f;
        Corners const at(p.screen_vertices.data + b * p.screen_vertices.stride(), face);
        Corners const moved(p.screen_vertices_tangent.data + b * p.screen_vertices.stride(), face);
        at.locate(int(x), int(y), p.perspective_correct)
            .find_tangent(at.x, at.y, at.z, p.perspective_correct, moved.x, moved.y, moved.z, barycentric_tangent, &depth_tangent);
    }
    for (int k = 0; k < 3; ++k) p.barycentric_tangent.data[3 * pixel + k] = static_cast<T>(barycentric_tangent[k]);
    p.depth_tangent.data[pixel] = static_cast<T>(depth_tangent);
}

// The gradient of one pixel.
template <typename T>
FOCUS_HD void add_rasterize_gradient(T const* screen_vertices, int32_t const* face, int px, int py, bool perspective_correct,
                                     T const* grad_barycentric, T const* grad_depth, double* grad) {
    Corners const at(screen_vertices, face);
    double g[3] = {0.0, 0.0, 0.0};
    if (grad_barycentric) {
        for (int k = 0; k < 3; ++k) g[k] = grad_barycentric[k];
    }
    double const gd = grad_depth ? static_cast<double>(*grad_depth) : 0.0;
    at.locate(px, py, perspective_correct).add_gradient(at.x, at.y, at.z, perspective_correct, g, grad_depth ? &gd : nullptr, grad);
}

}  // namespace focus
