"""The registry's routes, as one router."""

from fastapi import APIRouter

from runmirror.registry import routes_models, routes_versions

router = APIRouter()
router.include_router(routes_models.router)
router.include_router(routes_versions.router)
