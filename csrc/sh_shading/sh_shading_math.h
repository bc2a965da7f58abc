// The nine real spherical harmonics of l <= 2 as polynomials of the unit normal (x, y, z), with the Condon-Shortley signs. Polynomials
// have no pole: a normal along z has a gradient, where the form with angles divides by zero.
#pragma once

#include "common/vector.h"
#include "sh_shading/sh_shading.h"

namespace focus {

// Constants: sqrt(1/4pi), sqrt(3/4pi), sqrt(15/4pi), sqrt(5/16pi), sqrt(15/16pi).
template <typename T>
FOCUS_HD void sh_basis(Vector3<T> n, T* basis) {
    T const k0 = T(0.28209479177387814), k1 = T(0.4886025119029199), k2 = T(1.0925484305920792), k3 = T(0.31539156525252005),
            k4 = T(0.5462742152960396);
    basis[0] = k0;
    basis[1] = -k1 * n.y;
    basis[2] = k1 * n.z;
    basis[3] = -k1 * n.x;
    basis[4] = k2 * n.x * n.y;
    basis[5] = -k2 * n.y * n.z;
    basis[6] = k3 * (T(3) * n.z * n.z - T(1));
    basis[7] = -k2 * n.x * n.z;
    basis[8] = k4 * (n.x * n.x - n.y * n.y);
}

// The gradient of sum_i weight[i] * basis[i] with respect to the normal.
template <typename T>
FOCUS_HD Vector3<T> sh_basis_gradient(Vector3<T> n, T const* weight) {
    T const k1 = T(0.4886025119029199), k2 = T(1.0925484305920792), k3 = T(0.31539156525252005), k4 = T(0.5462742152960396);
    return {-k1 * weight[3] + k2 * (n.y * weight[4] - n.z * weight[7]) + T(2) * k4 * n.x * weight[8],
            -k1 * weight[1] + k2 * (n.x * weight[4] - n.z * weight[5]) - T(2) * k4 * n.y * weight[8],
            k1 * weight[2] - k2 * (n.y * weight[5] + n.x * weight[7]) + T(6) * k3 * n.z * weight[6]};
}

// colour[c] = albedo[c] * sum_i basis[i] coefficients[c][i]
template <typename T>
FOCUS_HD void shade(T const* normal, T const* albedo, T const* coefficients, T* color) {
    T basis[kShBands];
    sh_basis(load3(normal), basis);
    for (int c = 0; c < 3; ++c) {
        T light = T(0);
        for (int i = 0; i < kShBands; ++i) light += basis[i] * coefficients[c * kShBands + i];
        color[c] = albedo[c] * light;
    }
}

// Gradients of one vertex; `grad_normal`, `grad_albedo` may be null. Returns in `grad_light` what multiplies the basis in the gradient of
// the coefficients: d L / d coefficients[c][i] = sum over vertices of grad_light[c] * basis[i].
template <typename T>
FOCUS_HD void shade_gradient(T const* normal, T const* albedo, T const* coefficients, T const* grad_color, T* grad_normal, T* grad_albedo,
                             T* basis, T* grad_light) {
    Vector3<T> const n = load3(normal);
    sh_basis(n, basis);
    T weight[kShBands] = {};
    for (int c = 0; c < 3; ++c) {
        grad_light[c] = grad_color[c] * albedo[c];
        T light = T(0);
        for (int i = 0; i < kShBands; ++i) {
            light += basis[i] * coefficients[c * kShBands + i];
            weight[i] += grad_light[c] * coefficients[c * kShBands + i];
        }
        if (grad_albedo) grad_albedo[c] = grad_color[c] * light;
    }
    if (grad_normal) store3(grad_normal, sh_basis_gradient(n, weight));
}

}  // namespace focus
