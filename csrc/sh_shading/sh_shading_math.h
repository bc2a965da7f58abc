// The nine real spherical harmonics of l <= 2 as polynomials of the unit normal (x, y, z), with the Condon-Shortley signs. Polynomials
// have no pole: a normal along z has a gradient, where the form with angles divides by zero.
#pragma once

#include "common/vector.h"
#include "sh_shading/sh_shading.h"

namespace focus {

// Constants: sqrt(1/4pi), sqrt(3/4pi), sqrt(15/4pi), sqrt(5/16pi), sqrt(15/16pi).
template <typename T>
FOCUS_HD void sh_basis(Vector3<T> n, T* basis) {
    using S = Scalar<T>;
    S const k0 = S(0.28209479177387814), k1 = S(0.4886025119029199), k2 = S(1.0925484305920792), k3 = S(0.31539156525252005),
            k4 = S(0.5462742152960396);
    basis[0] = T{} + k0;
    basis[1] = -k1 * n.y;
    basis[2] = k1 * n.z;
    basis[3] = -k1 * n.x;
    basis[4] = k2 * n.x * n.y;
    basis[5] = -k2 * n.y * n.z;
    basis[6] = k3 * (S(3) * n.z * n.z - S(1));
    basis[7] = -k2 * n.x * n.z;
    basis[8] = k4 * (n.x * n.x - n.y * n.y);
}

// The gradient of sum_i weight[i] * basis[i] with respect to the normal.
template <typename T>
FOCUS_HD Vector3<T> sh_basis_gradient(Vector3<T> n, T const* weight) {
    using S = Scalar<T>;
    S const k1 = S(0.4886025119029199), k2 = S(1.0925484305920792), k3 = S(0.31539156525252005), k4 = S(0.5462742152960396);
    return {-k1 * weight[3] + k2 * (n.y * weight[4] - n.z * weight[7]) + S(2) * k4 * n.x * weight[8],
            -k1 * weight[1] + k2 * (n.x * weight[4] - n.z * weight[5]) - S(2) * k4 * n.y * weight[8],
            k1 * weight[2] - k2 * (n.y * weight[5] + n.x * weight[7]) + S(6) * k3 * n.z * weight[6]};
}

// colour[c] = albedo[c] * sum_i basis[i] coefficients[c][i]
template <typename T>
FOCUS_HD T sh_light(T const* basis, T const* coefficients) {
    T light{};
    for (int i = 0; i < kShBands; ++i) light += basis[i] * coefficients[i];
    return light;
}

template <typename T>
FOCUS_HD Vector3<T> shade(Vector3<T> normal, Vector3<T> albedo, T const* coefficients) {
    T basis[kShBands];
    sh_basis(normal, basis);
    return {albedo.x * sh_light(basis, coefficients), albedo.y * sh_light(basis, coefficients + kShBands),
            albedo.z * sh_light(basis, coefficients + 2 * kShBands)};
}

// Gradients of one vertex.
template <typename T>
struct ShadeGradient {
    Vector3<T> normal, albedo;
    T basis[kShBands];
    T light[3];  // d L / d coefficients[c][i] = sum over vertices of light[c] * basis[i]
};

template <typename T>
FOCUS_HD void shade_gradient(Vector3<T> normal, Vector3<T> albedo, T const* coefficients, Vector3<T> grad_color,
                             ShadeGradient<T>* gradient) {
    sh_basis(normal, gradient->basis);
    gradient->light[0] = grad_color.x * albedo.x;
    gradient->light[1] = grad_color.y * albedo.y;
    gradient->light[2] = grad_color.z * albedo.z;
    T weight[kShBands];
    for (int i = 0; i < kShBands; ++i) {
        T sum{};
        for (int c = 0; c < 3; ++c) sum += gradient->light[c] * coefficients[c * kShBands + i];
        weight[i] = sum;
    }
    gradient->normal = sh_basis_gradient(normal, weight);
    gradient->albedo = {grad_color.x * sh_light(gradient->basis, coefficients),
                        grad_color.y * sh_light(gradient->basis, coefficients + kShBands),
                        grad_color.z * sh_light(gradient->basis, coefficients + 2 * kShBands)};
}

// How the colour of vertex i of the batch moves.
template <typename T>
FOCUS_HD void shade_tangent(ShShadingTangentParameters<T> const& p, int64_t b, int64_t i) {
    Vector3<T> const normal = load3(p.normals.data + 3 * i), albedo = load3(p.albedo.data + 3 * i);
    T const* const coefficients = p.coefficients.data + b * kShEntries;
    T basis[kShBands];
    sh_basis(normal, basis);
    T const own[3] = {albedo.x, albedo.y, albedo.z};
    for (int c = 0; c < 3; ++c) {
        T const* const of_color = coefficients + c * kShBands;
        T light = T(0);  // how much that of the colour moves
        if (p.normals_tangent) light += dot(sh_basis_gradient(normal, of_color), load3(p.normals_tangent.data + 3 * i));
        if (p.coefficients_tangent) light += sh_light(basis, p.coefficients_tangent.data + b * kShEntries + c * kShBands);
        T tangent = own[c] * light;
        if (p.albedo_tangent) tangent += p.albedo_tangent.data[3 * i + c] * sh_light(basis, of_color);
        p.colors_tangent.data[3 * i + c] = tangent;
    }
}

}  // namespace focus
