//! Uploads of model files, streamed to the store.

use axum::Json;
use axum::extract::Request;
use axum::extract::State;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body;
use tenantry_types::{ErrorCode, ServiceError};

use super::AdminState;
use super::extract::{Caller, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{Artefact, ErrorBody};

/// Upload a model file or an archive of one; the body is the file. What it is for is said when a version is made of it.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/artefacts", tag = "versions", operation_id = "upload_artefact",
    params(TenantPath),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file."),
    responses((status = 201, body = Artefact, description = "Its address."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn create(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    request: Request,
) -> Result<(StatusCode, Json<Artefact>), Refusal> {
    let mut body = request.into_body();
    let content_length = body.size_hint().exact();
    let mut upload = state.server.begin_upload(&caller, &path.tenant, content_length).await?;
    loop {
        let frame = tokio::time::timeout(state.upload_pause, body.frame()).await.map_err(|_| {
            ServiceError::new(ErrorCode::DeadlineExceeded, "the upload paused for too long; start it again")
        })?;
        match frame {
            None => break,
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    upload.write(data).await?;
                }
            }
            // Dropping the upload leaves nothing behind.
            Some(Err(_)) => {
                return Err(
                    ServiceError::new(ErrorCode::Cancelled, "the connection ended before the upload did").into()
                );
            }
        }
    }
    Ok((StatusCode::CREATED, Json(upload.finish().await?.into())))
}
