// One function per op, each in its bind_<op>.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace focus::bindings {

void bind_topology(pybind11::module_& module);
void bind_rasterize(pybind11::module_& module);
void bind_interpolate(pybind11::module_& module);
void bind_render(pybind11::module_& module);
void bind_antialias(pybind11::module_& module);
void bind_vertex_normals(pybind11::module_& module);
void bind_sh_shading(pybind11::module_& module);
void bind_neighbor_min(pybind11::module_& module);
void bind_masked_photometric(pybind11::module_& module);
void bind_outlier_robust(pybind11::module_& module);

}  // namespace focus::bindings
