"""The registry's routes, as one router."""

from fastapi import APIRouter

from runmirror.registry import routes_models, routes_versions

router = APIRouter()
router.routes.extend(routes_models.router.routes)
router.routes.extend(routes_versions.router.routes)
