-- Roles with only the rights that they need: tlopt_worker for workers, tlopt_viewer for dashboard, status and report.
--
-- Run it as the owner of the tables once they exist (tlopt check creates them), and again after an upgrade:
--   psql "$(cat owner_url)" -v ON_ERROR_STOP=1 -f roles.sql
-- It sets no passwords; a role cannot log in until it has one:
--   ALTER ROLE tlopt_worker PASSWORD '...';   ALTER ROLE tlopt_viewer PASSWORD '...';
-- The owner is needed for tlopt check, tlopt upgrade and deleting studies; nobody else needs its password.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tlopt_worker') THEN
        CREATE ROLE tlopt_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tlopt_viewer') THEN
        CREATE ROLE tlopt_viewer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
    END IF;
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO tlopt_worker, tlopt_viewer;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM tlopt_worker, tlopt_viewer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO tlopt_worker, tlopt_viewer;

-- A worker creates studies and trials and writes results. It can delete leases and rows of workers, but neither studies,
-- trials nor results, and it cannot alter tables.
GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO tlopt_worker;
REVOKE INSERT, UPDATE ON alembic_version, version_info FROM tlopt_worker;
GRANT DELETE ON tlopt_leases, tlopt_workers TO tlopt_worker;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO tlopt_worker;

ALTER ROLE tlopt_viewer SET default_transaction_read_only = on;
